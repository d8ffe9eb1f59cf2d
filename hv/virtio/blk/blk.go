// Package blk is the virtio block device (virtio 1.2, section 5.2) on a
// block.Device.
//
// Requests of one queue are worked on in parallel, and those of several queues
// independently. Nothing polls: an idle disk costs no thread.
package blk

import (
	"encoding/binary"
	"sync/atomic"

	"quantavirt/hv/block"
	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

const (
	queueSize = virtio.MaxQueueSize
	// segMax leaves room for the header and the status of a request.
	segMax  = queueSize - 2
	sizeMax = 1 << 20
	// depth is how many requests a disk works on at once, over all its queues:
	// each takes a thread while the host's disk works.
	depth = 16

	maxQueues         = 64
	maxRangeSegments  = 16
	maxRangeSectors   = 1 << 22 // 2 GiB in one segment
	idSize            = 20
	configSize        = 60
	physicalBlockExp  = 3 // 4096 bytes are a good unit on the host
	optimalIOSectors  = 128
	writeZeroMayUnmap = 1
)

// Feature bits, section 5.2.3.
const (
	featureSizeMax     = 1 << 1
	featureSegMax      = 1 << 2
	featureReadOnly    = 1 << 5
	featureBlockSize   = 1 << 6
	featureFlush       = 1 << 9
	featureTopology    = 1 << 10
	featureMQ          = 1 << 12
	featureDiscard     = 1 << 13
	featureWriteZeroes = 1 << 14
)

// Options of a disk.
type Options struct {
	ReadOnly bool
	// Writethrough says that every write is durable when it is done: the guest
	// then sends no flushes.
	Writethrough bool
	// Discard lets the guest free space.
	Discard bool
	Serial  string // at most 20 bytes
	Queues  int    // 1 to 64; 0 means 1
	// Log is told about the first failure of each kind; nil discards.
	Log func(error)
}

// Counters are what the guest asked for. They only grow.
type Counters struct {
	Reads, ReadBytes, Writes, WriteBytes, Flushes, Discards, Errors atomic.Uint64
}

// Device is one disk.
type Device struct {
	Counters Counters

	disk    block.Device
	opts    Options
	space   [configSize]byte
	workers []virtio.Worker
	failed  atomic.Int32 // code of the last failure that was logged
}

// New makes a disk; it takes over no ownership of disk.
func New(disk block.Device, opts Options) (*Device, error) {
	if opts.Queues == 0 {
		opts.Queues = 1
	}
	if opts.Queues < 0 || opts.Queues > maxQueues || len(opts.Serial) > idSize {
		return nil, qverr.New(qverr.Config, "disk with %d queues and serial %q", opts.Queues, opts.Serial)
	}
	if opts.Log == nil {
		opts.Log = func(error) {}
	}
	d := &Device{disk: disk, opts: opts, workers: make([]virtio.Worker, opts.Queues)}
	for i := range d.workers {
		d.workers[i].Handle = d.handle
		d.workers[i].Depth = max(1, depth/opts.Queues)
	}
	d.fillConfig()
	return d, nil
}

func (d *Device) fillConfig() {
	le, c := binary.LittleEndian, d.space[:]
	le.PutUint64(c[0:], uint64(d.disk.Size())/block.SectorSize)
	le.PutUint32(c[8:], sizeMax)
	le.PutUint32(c[12:], segMax)
	le.PutUint32(c[20:], block.SectorSize)
	c[24] = physicalBlockExp
	le.PutUint16(c[26:], 1)
	le.PutUint32(c[28:], optimalIOSectors)
	le.PutUint16(c[34:], uint16(d.opts.Queues))
	le.PutUint32(c[36:], maxRangeSectors)
	le.PutUint32(c[40:], maxRangeSegments)
	le.PutUint32(c[44:], 1<<physicalBlockExp)
	le.PutUint32(c[48:], maxRangeSectors)
	le.PutUint32(c[52:], maxRangeSegments)
	c[56] = writeZeroMayUnmap
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeBlock }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	f := uint64(featureSizeMax | featureSegMax | featureBlockSize | featureTopology)
	if d.opts.Queues > 1 {
		f |= featureMQ
	}
	if d.opts.ReadOnly {
		return f | featureReadOnly
	}
	f |= featureWriteZeroes
	if d.opts.Discard {
		f |= featureDiscard
	}
	if !d.opts.Writethrough {
		f |= featureFlush
	}
	return f
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	sizes := make([]uint16, d.opts.Queues)
	for i := range sizes {
		sizes[i] = queueSize
	}
	return sizes
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint32, p []byte) { virtio.ConfigBytes(d.space[:], off, p) }

// WriteConfig implements virtio.Device: nothing can be written without CONFIG_WCE.
func (d *Device) WriteConfig(uint32, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(_ uint64, queues []*virtio.Queue, host virtio.Host) error {
	for i, q := range queues {
		if q != nil {
			d.workers[i].Start(q, host)
		}
	}
	return nil
}

// Deactivate implements virtio.Device.
func (d *Device) Deactivate() {
	for i := range d.workers {
		d.workers[i].Stop()
	}
}

// Pause implements virtio.Device.
func (d *Device) Pause() error {
	for i := range d.workers {
		d.workers[i].Pause()
	}
	return nil
}

// Resume implements virtio.Device.
func (d *Device) Resume() error {
	for i := range d.workers {
		d.workers[i].Resume()
	}
	return nil
}
