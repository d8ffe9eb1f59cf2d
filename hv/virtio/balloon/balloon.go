// Package balloon is the virtio memory balloon (virtio 1.2, section 5.5): the guest
// gives pages back when it is asked to, tells of pages that it does not use at the
// moment (free page reporting), and of how it fares (statistics). Pages that are given
// back read as zero and take memory of the host again when they are used.
//
// Memory that a device has pinned (VFIO) cannot be given back: such a machine has no
// balloon.
package balloon

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"time"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

// Feature bits, section 5.5.3. Pages need not be told of when they are taken back
// (MUST_TELL_HOST), and the guest may do so when it runs out of memory.
const (
	featureStats        = 1 << 1
	featureDeflateOnOOM = 1 << 2
	featureReporting    = 1 << 5
)

// Queues, in the order of section 5.5.2. A queue that the driver does not want is not
// counted, so that reporting comes third for a driver without statistics.
const (
	inflateQueue   = 0
	deflateQueue   = 1
	statsQueue     = 2
	reportingQueue = 3

	queueSize  = 128
	queueCount = 4

	// pageShift is that of the page numbers of this device, whatever the guest's pages are.
	pageShift = 12
	// maxNumbers is how many page numbers one request is heeded for; Linux sends 256.
	maxNumbers = 4096
)

// The configuration space, section 5.5.4.
const (
	configTarget = 0
	configActual = 4
	configSize   = 16
)

// Device is one balloon.
type Device struct {
	mem                         *memory.Memory
	inflate, deflate, reporting virtio.Worker
	numbers                     [4 * maxNumbers]byte // of inflate, which one goroutine runs
	stats                       statistics
	reported, inflated          atomic.Uint64 // bytes, since the device was made

	mu    sync.Mutex // guards what follows
	space [configSize]byte
	host  virtio.Host // nil while no driver has the device
}

// New makes a balloon for mem that is to leave the guest target bytes; 0 means all.
func New(mem *memory.Memory, target int64) (*Device, error) {
	d := &Device{mem: mem}
	d.inflate.Handle, d.deflate.Handle, d.reporting.Handle = d.takePages, ignore, d.takeRanges
	d.stats.init()
	if target == 0 {
		target = int64(mem.Size())
	}
	return d, d.setTarget(target)
}

// State is where a balloon is, in bytes.
type State struct {
	Target int64 // memory that is to be left to the guest
	Actual int64 // memory that the guest says it has
	// Inflated and Reported are what came back to the host since the start: some of it
	// is in use again.
	Inflated, Reported uint64
	Ready              bool // a driver has the balloon
}

// State reads the present state.
func (d *Device) State() State {
	d.mu.Lock()
	defer d.mu.Unlock()
	size := int64(d.mem.Size())
	pages := func(at int) int64 { return int64(binary.LittleEndian.Uint32(d.space[at:])) << pageShift }
	return State{Target: size - pages(configTarget), Actual: max(size-pages(configActual), 0),
		Inflated: d.inflated.Load(), Reported: d.reported.Load(), Ready: d.host != nil}
}

// SetTarget asks the guest to make do with target bytes, a multiple of 4096 up to all of
// its memory. Whether and when it does shows in State. QV_ERR_BALLOON when no driver
// has the balloon, and nothing changes.
func (d *Device) SetTarget(target int64) error {
	d.mu.Lock()
	host := d.host
	d.mu.Unlock()
	if host == nil {
		return qverr.New(qverr.Balloon, "the guest has no driver for its balloon")
	}
	if err := d.setTarget(target); err != nil {
		return err
	}
	host.ConfigChanged()
	return nil
}

func (d *Device) setTarget(target int64) error {
	size := int64(d.mem.Size())
	if target < 0 || target > size || target%(1<<pageShift) != 0 || (size-target)>>pageShift > 1<<32-1 {
		return qverr.New(qverr.Inval, "balloon: a target of %d bytes: a multiple of 4096 up to %d is needed", target, size)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	binary.LittleEndian.PutUint32(d.space[configTarget:], uint32((size-target)>>pageShift))
	return nil
}

// Statistics asks the guest how it fares and waits for the answer, for as long as limit;
// without one it returns the last. It is nil when there never was one.
func (d *Device) Statistics(limit time.Duration) *Statistics { return d.stats.ask(limit) }

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeBalloon }

// Features implements virtio.Device.
func (d *Device) Features() uint64 { return featureStats | featureDeflateOnOOM | featureReporting }

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	return []uint16{queueSize, queueSize, queueSize, queueSize}[:queueCount]
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint32, p []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	virtio.ConfigBytes(d.space[:], off, p)
}

// WriteConfig implements virtio.Device: the driver says how many pages it gave.
func (d *Device) WriteConfig(off uint32, p []byte) {
	if off != configActual || len(p) != 4 {
		return
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	copy(d.space[configActual:], p)
}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, queues []*virtio.Queue, host virtio.Host) error {
	start := func(w *virtio.Worker, i int) {
		if queues[i] != nil {
			w.Start(queues[i], host)
		}
	}
	start(&d.inflate, inflateQueue)
	start(&d.deflate, deflateQueue)
	reporting := statsQueue
	if features&featureStats != 0 {
		reporting = reportingQueue
		if queues[statsQueue] != nil {
			d.stats.start(queues[statsQueue], host)
		}
	}
	if features&featureReporting != 0 {
		start(&d.reporting, reporting)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = host
	return nil
}

// Deactivate implements virtio.Device. The next driver begins with an empty balloon and
// the same target.
func (d *Device) Deactivate() {
	for _, w := range d.workers() {
		w.Stop()
	}
	d.stats.stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.host = nil
	clear(d.space[configActual:])
}

func (d *Device) workers() []*virtio.Worker {
	return []*virtio.Worker{&d.inflate, &d.deflate, &d.reporting}
}

// Pause implements virtio.Device: no page goes back to the host meanwhile.
func (d *Device) Pause() error {
	for _, w := range d.workers() {
		w.Pause()
	}
	d.stats.pause()
	return nil
}

// Resume implements virtio.Device.
func (d *Device) Resume() error {
	for _, w := range d.workers() {
		w.Resume()
	}
	d.stats.resume()
	return nil
}

// ignore does nothing with pages that the guest takes back: they come with their first use.
func ignore(*virtio.Chain) (uint32, error) { return 0, nil }

// takePages takes the pages whose numbers the guest sends, runs of them at once.
func (d *Device) takePages(c *virtio.Chain) (uint32, error) {
	n := c.CopyOut(d.numbers[:], 0) &^ 3
	first, count := uint64(0), uint64(0)
	for i := 0; i < n; i += 4 {
		page := uint64(binary.LittleEndian.Uint32(d.numbers[i:]))
		switch {
		case count > 0 && page == first+count:
			count++
			continue
		case count > 0:
			if err := d.takeRun(first, count); err != nil {
				return 0, err
			}
		}
		first, count = page, 1
	}
	return 0, d.takeRun(first, count)
}

// takeRun takes pages that follow each other. What is not RAM breaks the device.
func (d *Device) takeRun(first, count uint64) error {
	if count == 0 {
		return nil
	}
	s, err := d.mem.Slice(first<<pageShift, count<<pageShift)
	if err != nil {
		return fmt.Errorf("%w: balloon: pages %#x to %#x: %w", virtio.ErrDriver, first, first+count-1, err)
	}
	n, err := d.mem.Release(s)
	d.inflated.Add(uint64(n))
	return err
}

// takeRanges takes the memory that the guest tells of as free. It may use it again once
// the request is back.
func (d *Device) takeRanges(c *virtio.Chain) (uint32, error) {
	for _, b := range c.Write {
		n, err := d.mem.Release(b)
		d.reported.Add(uint64(n))
		if err != nil {
			return 0, err
		}
	}
	return 0, nil
}
