// Package blk is the virtio block device (virtio 1.2, section 5.2) on a
// block.Device.
//
// Each queue has one goroutine, a block.Queue and counters of its own: queues share
// nothing that changes with a request but the limits. The goroutine sleeps in the
// runtime's poller on the one eventfd that the guest kicks and that the host signals
// when requests are done. Nothing polls: an idle disk costs no thread.
package blk

import (
	"encoding/binary"
	"errors"
	"sync/atomic"

	"quantavirt/hv/block"
	"quantavirt/hv/limit"
	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

const (
	queueSize = virtio.MaxQueueSize
	// segMax leaves room for the header and the status of a request.
	segMax  = queueSize - 2
	sizeMax = 1 << 20
	// threads is how many requests of a disk wait in system calls at once, over all
	// its queues, where the host has no io_uring.
	threads = 16

	maxQueues         = 64
	maxRangeSegments  = 16
	maxRangeSectors   = 1 << 22 // 2 GiB in one segment
	idSize            = 20
	configSize        = 60
	writebackAt       = 32 // offset of the configuration's field writeback
	physicalBlockExp  = 3  // 4096 bytes are a good unit on the host
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
	featureConfigWCE   = 1 << 11
	featureMQ          = 1 << 12
	featureDiscard     = 1 << 13
	featureWriteZeroes = 1 << 14
)

// Options of a disk.
type Options struct {
	ReadOnly bool
	// Writethrough says that every write is durable when it is done: the guest
	// then sends no flushes. Otherwise the guest may choose so (CONFIG_WCE).
	Writethrough bool
	// Discard lets the guest free space.
	Discard bool
	Serial  string // at most 20 bytes
	Queues  int    // 1 to 64; 0 means 1
	Limits  limit.Limits
	// Log is told about the first failure of each kind; nil discards.
	Log func(error)
}

// Device is one disk.
type Device struct {
	disk    block.Device
	opts    Options
	limiter *limit.Limiter
	space   [configSize]byte
	queues  []*queue
	failed  atomic.Int32 // code of the last failure that was logged
	// durable says that the guest wants every write on the medium when it is done.
	durable atomic.Bool
}

// New makes a disk; it takes over no ownership of disk.
func New(disk block.Device, opts Options) (*Device, error) {
	if opts.Queues == 0 {
		opts.Queues = 1
	}
	if opts.Queues < 0 || opts.Queues > maxQueues || len(opts.Serial) > idSize {
		return nil, qverr.New(qverr.Config, "disk with %d queues and serial %q", opts.Queues, opts.Serial)
	}
	if err := opts.Limits.Validate(); err != nil {
		return nil, err
	}
	if opts.Log == nil {
		opts.Log = func(error) {}
	}
	d := &Device{disk: disk, opts: opts, limiter: limit.New(opts.Limits)}
	for range opts.Queues {
		d.queues = append(d.queues, newQueue(d))
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
		f |= featureFlush | featureConfigWCE
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
func (d *Device) ReadConfig(off uint32, p []byte) {
	space := d.space
	if !d.durable.Load() {
		space[writebackAt] = 1
	}
	virtio.ConfigBytes(space[:], off, p)
}

// WriteConfig implements virtio.Device: the guest may write the field writeback.
func (d *Device) WriteConfig(off uint32, p []byte) {
	if off == writebackAt && len(p) == 1 && p[0] <= 1 && !d.opts.Writethrough {
		d.durable.Store(p[0] == 0)
	}
}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, queues []*virtio.Queue, host virtio.Host) error {
	// Without FLUSH the driver cannot ask for durability: section 5.2.6.2.
	d.durable.Store(d.opts.Writethrough || !d.opts.ReadOnly && features&featureFlush == 0)
	for i, q := range queues {
		if q == nil {
			continue
		}
		d.queues[i].start(q, host)
	}
	return nil
}

// Prepare implements virtio.Preparer: a ring of io_uring cannot be made in the jail.
func (d *Device) Prepare(kicks []*virtio.Event) error {
	for i, q := range d.queues {
		if err := q.open(kicks[i]); err != nil {
			return err
		}
	}
	return nil
}

// Release implements virtio.Preparer.
func (d *Device) Release() {
	for _, q := range d.queues {
		q.close()
	}
}

// Deactivate implements virtio.Device.
func (d *Device) Deactivate() {
	for _, q := range d.queues {
		q.stop()
	}
}

// Pause implements virtio.Device.
func (d *Device) Pause() error {
	for _, q := range d.queues {
		q.pause()
	}
	return nil
}

// Resume implements virtio.Device.
func (d *Device) Resume() error {
	for _, q := range d.queues {
		q.resume()
	}
	return nil
}

// Limits are those that apply.
func (d *Device) Limits() limit.Limits { return d.limiter.Limits() }

// SetLimits changes the limits, for waiting requests too.
func (d *Device) SetLimits(l limit.Limits) error {
	if err := l.Validate(); err != nil {
		return err
	}
	d.limiter.Set(l)
	for _, q := range d.queues {
		q.unlimit()
	}
	return nil
}

// fail counts a failure, and logs it unless the one before was of the same kind:
// a guest that goes on writing to a full disk must not fill the log too.
func (d *Device) fail(err error) {
	if code := int32(qverr.CodeOf(err)); d.failed.Swap(code) != code {
		d.opts.Log(err)
	}
}

// statusOf is the status that tells the driver of err.
func statusOf(err error) byte {
	switch {
	case err == nil:
		return statusOK
	case errors.Is(err, qverr.Unsupported), errors.Is(err, qverr.StrDiscard):
		return statusUnsupported // the driver may do without
	}
	return statusIOError
}
