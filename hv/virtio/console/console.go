// Package console is the virtio console (virtio 1.2, section 5.3). Port 0 is the
// guest's /dev/hvc0. Further ports are byte streams with names, for an agent in the
// guest: /dev/virtio-ports/NAME there, a Stream here.
//
// A guest can print as fast as it likes: what is over the limit of the console waits in
// the guest, and so does what the reader of a stream does not take.
package console

import (
	"encoding/binary"
	"io"
	"sync"

	"quantavirt/hv/limit"
	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

const (
	queueSize = 64
	// maxInput is how much typed input waits for a guest that does not read.
	maxInput = 4096
	// MaxPorts is how many named ports a console can have.
	MaxPorts = 8
	// MaxName is the longest name of a port in bytes.
	MaxName = 64
)

// Feature bits, section 5.3.3.
const (
	featureSize      = 1 << 0
	featureMultiport = 1 << 1
)

// The configuration space, section 5.3.4.
const (
	configColumns = 0
	configRows    = 2
	configPorts   = 4
	configSize    = 12
)

// The queues of port 0 are the first two; those of control follow, then the others'
// (section 5.3.2).
const (
	controlIn  = 2 // to the guest
	controlOut = 3
)

// Options of a console.
type Options struct {
	// Ports are the names of further ports, at most MaxPorts.
	Ports []string
	// Limit holds what the guest prints on port 0; nil does not.
	Limit *limit.Limiter
}

// Device is one console. What the guest prints goes to the writer given to New;
// Write types into the guest.
type Device struct {
	out     io.Writer
	gate    *limit.Gate
	rx, tx  virtio.Worker
	control control
	streams []*Stream // port 1 and on

	mu     sync.Mutex // guards what follows
	input  []byte
	active bool
	space  [configSize]byte
	host   virtio.Host // nil while no driver has the device
}

// New makes a console that prints to out. A slow out slows the guest down.
func New(out io.Writer, o Options) (*Device, error) {
	if len(o.Ports) > MaxPorts {
		return nil, qverr.New(qverr.Limit, "console: %d ports: %d are possible", len(o.Ports), MaxPorts)
	}
	d := &Device{out: out}
	d.gate = limit.NewGate(o.Limit, d.tx.Wake)
	d.rx.Handle, d.rx.Ready = d.receive, d.hasInput
	d.tx.Handle, d.tx.Ready = d.transmit, d.gate.Open
	names := append([]string{""}, o.Ports...)
	d.control.init(names)
	for i := range o.Ports {
		d.streams = append(d.streams, newStream(&d.control, i+1))
	}
	d.control.opened = d.portOpened
	binary.LittleEndian.PutUint32(d.space[configPorts:], uint32(len(names)))
	return d, nil
}

// Stream is the port called name, or nil.
func (d *Device) Stream(name string) *Stream {
	for _, s := range d.streams {
		if d.control.ports[s.port].name == name {
			return s
		}
	}
	return nil
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

// SetSize tells the guest how large the terminal is.
func (d *Device) SetSize(columns, rows uint16) {
	d.mu.Lock()
	binary.LittleEndian.PutUint16(d.space[configColumns:], columns)
	binary.LittleEndian.PutUint16(d.space[configRows:], rows)
	host := d.host
	d.mu.Unlock()
	d.control.resize(columns, rows)
	if host != nil {
		host.ConfigChanged()
	}
}

func (d *Device) hasInput() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.input) > 0
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeConsole }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	if len(d.streams) == 0 {
		return featureSize
	}
	return featureSize | featureMultiport
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	n := 2
	if len(d.streams) > 0 {
		n = 2 * (2 + len(d.streams))
	}
	sizes := make([]uint16, n)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint32, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	virtio.ConfigBytes(d.space[:], off, p)
}

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint32, []byte) {}

// portQueue is the first queue of a port.
func portQueue(port int) int {
	if port == 0 {
		return 0
	}
	return 2 * (port + 1)
}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, queues []*virtio.Queue, host virtio.Host) error {
	d.mu.Lock()
	d.active, d.host = true, host
	d.mu.Unlock()
	start := func(w *virtio.Worker, i int) {
		if i < len(queues) && queues[i] != nil {
			w.Start(queues[i], host)
		}
	}
	start(&d.rx, 0)
	start(&d.tx, 1)
	if features&featureMultiport == 0 {
		return nil
	}
	start(&d.control.in, controlIn)
	start(&d.control.out, controlOut)
	for _, s := range d.streams {
		start(&s.rx, portQueue(s.port))
		start(&s.tx, portQueue(s.port)+1)
	}
	return nil
}

func (d *Device) workers() []*virtio.Worker {
	list := []*virtio.Worker{&d.control.out, &d.control.in, &d.rx, &d.tx}
	for _, s := range d.streams {
		list = append(list, &s.rx, &s.tx)
	}
	return list
}

// Deactivate implements virtio.Device. Input that a guest did not read is dropped:
// it was not meant for the next one. What is typed before a driver is there waits
// for it.
func (d *Device) Deactivate() {
	for _, w := range d.workers() {
		w.Stop()
	}
	d.mu.Lock()
	was := d.active
	if was {
		d.input, d.active, d.host = nil, false, nil
	}
	d.mu.Unlock()
	if was {
		d.control.reset()
		for _, s := range d.streams {
			s.reset()
		}
	}
}

// Pause implements virtio.Device.
func (d *Device) Pause() error {
	for _, w := range d.workers() {
		w.Pause()
	}
	return nil
}

// Resume implements virtio.Device.
func (d *Device) Resume() error {
	for _, w := range d.workers() {
		w.Resume()
	}
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
	d.gate.Charge(uint64(virtio.Len(c.Read)))
	return 0, nil
}

// portOpened hears that the guest opened or closed a port.
func (d *Device) portOpened(port int, open bool) {
	if port > 0 {
		d.streams[port-1].guestOpened(open)
	}
}
