// Package rng is the virtio entropy device (virtio 1.2, section 5.4): one queue,
// filled from the host kernel's random number generator.
package rng

import (
	"errors"

	"golang.org/x/sys/unix"

	"quantavirt/hv/limit"
	"quantavirt/hv/virtio"
)

const (
	queueSize = 64
	// maxRequest is how much one request is filled with; the driver asks again.
	maxRequest = 64 << 10
)

// Device is one entropy device.
type Device struct {
	worker virtio.Worker
	gate   *limit.Gate
}

// New makes an entropy device. l holds how much the guest may draw, which costs the
// host time; nil does not.
func New(l *limit.Limiter) *Device {
	d := &Device{}
	d.gate = limit.NewGate(l, d.worker.Wake)
	d.worker.Handle, d.worker.Ready = d.fill, d.gate.Open
	return d
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeEntropy }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize} }

// ReadConfig implements virtio.Device: there is no configuration.
func (d *Device) ReadConfig(_ uint32, p []byte) { clear(p) }

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint32, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(_ uint64, queues []*virtio.Queue, host virtio.Host) error {
	if queues[0] != nil {
		d.worker.Start(queues[0], host)
	}
	return nil
}

// Deactivate implements virtio.Device.
func (d *Device) Deactivate() { d.worker.Stop() }

// Pause implements virtio.Device.
func (d *Device) Pause() error { d.worker.Pause(); return nil }

// Resume implements virtio.Device.
func (d *Device) Resume() error { d.worker.Resume(); return nil }

func (d *Device) fill(c *virtio.Chain) (uint32, error) {
	total := 0
	for _, b := range c.Write {
		for len(b) > 0 && total < maxRequest {
			n, err := unix.Getrandom(b[:min(len(b), maxRequest-total)], 0)
			if err != nil && !errors.Is(err, unix.EINTR) {
				return 0, err
			}
			n = max(n, 0)
			b, total = b[n:], total+n
		}
	}
	d.gate.Charge(uint64(total))
	return uint32(total), nil
}
