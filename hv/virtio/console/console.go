// Package console is the virtio console (virtio 1.2, section 5.3) with one port:
// the guest's /dev/hvc0.
package console

import (
	"io"
	"sync"

	"quantavirt/hv/virtio"
)

const (
	queueSize = 64
	rxQueue   = 0
	txQueue   = 1
	// maxInput is how much typed input waits for a guest that does not read.
	maxInput = 4096
)

// Device is one console. What the guest prints goes to the writer given to New;
// Write types into the guest.
type Device struct {
	out io.Writer
	rx  virtio.Worker
	tx  virtio.Worker

	mu     sync.Mutex
	input  []byte
	active bool
}

// New makes a console that prints to out. A slow out slows the guest down.
func New(out io.Writer) *Device {
	d := &Device{out: out}
	d.rx.Handle, d.rx.Ready = d.receive, d.hasInput
	d.tx.Handle = d.transmit
	return d
}

// Write types p into the guest. It takes what fits and drops the rest, as a
// terminal does whose reader sleeps; it never blocks and never fails.
func (d *Device) Write(p []byte) (int, error) {
	d.mu.Lock()
	d.input = append(d.input, p[:min(len(p), maxInput-len(d.input))]...)
	d.mu.Unlock()
	d.rx.Wake()
	return len(p), nil
}

func (d *Device) hasInput() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.input) > 0
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeConsole }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize} }

// ReadConfig implements virtio.Device: size and ports are not offered.
func (d *Device) ReadConfig(_ uint32, p []byte) { clear(p) }

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint32, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(_ uint64, queues []*virtio.Queue, host virtio.Host) error {
	d.mu.Lock()
	d.active = true
	d.mu.Unlock()
	if q := queues[rxQueue]; q != nil {
		d.rx.Start(q, host)
	}
	if q := queues[txQueue]; q != nil {
		d.tx.Start(q, host)
	}
	return nil
}

// Deactivate implements virtio.Device. Input that a guest did not read is dropped:
// it was not meant for the next one. What is typed before a driver is there waits
// for it.
func (d *Device) Deactivate() {
	d.rx.Stop()
	d.tx.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.active {
		d.input, d.active = nil, false
	}
}

// Pause implements virtio.Device.
func (d *Device) Pause() error {
	d.rx.Pause()
	d.tx.Pause()
	return nil
}

// Resume implements virtio.Device.
func (d *Device) Resume() error {
	d.rx.Resume()
	d.tx.Resume()
	return nil
}

func (d *Device) receive(c *virtio.Chain) (uint32, error) {
	d.mu.Lock()
	defer d.mu.Unlock()
	n := c.CopyIn(d.input)
	d.input = d.input[:copy(d.input, d.input[n:])]
	return uint32(n), nil
}

func (d *Device) transmit(c *virtio.Chain) (uint32, error) {
	for _, b := range c.Read {
		// A console that cannot be recorded is no reason to stop the guest.
		_, _ = d.out.Write(b)
	}
	return 0, nil
}
