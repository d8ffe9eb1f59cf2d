// Package vsock is the virtio socket device (virtio 1.2, section 5.10) on the
// kernel's vhost-vsock: the guest reaches its host as CID 2.
package vsock

import (
	"encoding/binary"
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/vhost"
	"quantavirt/internal/qverr"
)

// ioctl numbers of linux/vhost.h.
const (
	setGuestCID = 0x4008af60
	setRunning  = 0x4004af61
)

const (
	queueSize = 128
	// The kernel serves the first two queues; the event queue is used only
	// after a migration.
	vhostQueues = 2
	queueCount  = 3

	featureSeqpacket = 1 << 1

	// One vector for configuration changes and one for all queues. With one for each,
	// Linux puts the two queues of a connection on different CPUs, and every packet
	// wakes the other CPU to free a buffer: requests were a quarter slower in a guest
	// with four (medians of five boots under TCG: 231 a second, with this one 299).
	vectors = 2
)

// Device is one vsock device.
type Device struct {
	cid     uint32
	mem     *memory.Memory
	vhost   *vhost.Dev
	started bool // the kernel has the queues
	paused  bool
}

// New makes a device with the guest's context id on an open /dev/vhost-vsock,
// which it takes over. An id that another VM has is QV_ERR_EXIST.
func New(cid uint32, file *os.File, mem *memory.Memory) (*Device, error) {
	dev, err := vhost.Open(file, mem)
	if err != nil {
		return nil, qverr.New(qverr.NoDev, "vsock: %w", err)
	}
	id := uint64(cid)
	if err := dev.Ioctl(setGuestCID, unsafe.Pointer(&id)); err != nil {
		code := qverr.CodeOf(err)
		if err == unix.EADDRINUSE {
			code = qverr.Exist
		}
		return nil, qverr.New(code, "vsock context id %d: %w", cid, err)
	}
	return &Device{cid: cid, mem: mem, vhost: dev}, nil
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeVsock }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return featureSeqpacket & d.vhost.Features() }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	return []uint16{queueSize, queueSize, queueSize}[:queueCount]
}

// Vectors implements virtio.VectorCounter.
func (d *Device) Vectors() int { return vectors }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint32, p []byte) {
	var space [8]byte
	binary.LittleEndian.PutUint64(space[:], uint64(d.cid))
	virtio.ConfigBytes(space[:], off, p)
}

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint32, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, queues []*virtio.Queue, _ virtio.Host) error {
	if err := d.vhost.SetFeatures(features); err != nil {
		return qverr.New(qverr.CodeOf(err), "vsock: %w", err)
	}
	for i := range vhostQueues {
		if queues[i] == nil {
			return qverr.New(qverr.Inval, "vsock: the driver left out queue %d", i)
		}
		if err := d.vhost.SetQueue(uint32(i), queues[i], d.mem); err != nil {
			return qverr.New(qverr.CodeOf(err), "vsock: %w", err)
		}
	}
	d.started = true
	return d.run(!d.paused)
}

// Deactivate implements virtio.Device.
func (d *Device) Deactivate() {
	if d.started {
		_ = d.run(false)
		d.started = false
	}
}

// Pause implements virtio.Device.
func (d *Device) Pause() error {
	d.paused = true
	return d.run(false)
}

// Resume implements virtio.Device.
func (d *Device) Resume() error {
	d.paused = false
	return d.run(true)
}

// run starts or stops the kernel's work on the queues. It keeps its place in them.
func (d *Device) run(on bool) error {
	if !d.started {
		return nil
	}
	var v int32
	if on {
		v = 1
	}
	if err := d.vhost.Ioctl(setRunning, unsafe.Pointer(&v)); err != nil {
		return qverr.New(qverr.CodeOf(err), "vsock: run %v: %w", on, err)
	}
	return nil
}
