// Package net is the virtio network device (virtio 1.2, section 5.1) on the
// queues of a TAP: through the kernel's vhost-net when descriptors of it are given,
// in this process otherwise. It has up to 64 pairs of queues, each on a queue of the
// TAP of its own, and a control queue.
//
// The TAP must have been made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR, and with
// IFF_MULTI_QUEUE for more than one pair. What the guest's driver accepts of
// checksums and segmentation is what the TAP hands over without doing it first, so
// that a packet of 64 KiB passes from the guest to another one in one piece.
package net

import (
	"encoding/binary"
	"net"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/hv/limit"
	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

const (
	queueSize   = virtio.MaxQueueSize
	controlSize = 64

	headerSize = 12 // struct virtio_net_hdr_v1
	configSize = 12
	defaultMTU = 1500
	// MaxPairs is the largest number of pairs of queues.
	MaxPairs = 64
)

// The configuration space, section 5.1.4.
const (
	configStatus = 6
	configPairs  = 8
	configMTU    = 10

	statusLinkUp   = 1
	statusAnnounce = 2
)

// Options of a network device.
type Options struct {
	MAC net.HardwareAddr
	MTU int // 0 means 1500
	// Vhost holds an open /dev/vhost-net for each TAP queue; none moves the packets
	// in this process. The device takes them over, and the TAP.
	Vhost []*os.File
	Mem   *memory.Memory
	// Limits hold for each direction by itself. The kernel's way has none.
	Limits limit.Limits
}

// pair moves packets between two queues of the guest and one of the TAP.
type pair interface {
	features() uint64
	start(features uint64, rx, tx *virtio.Queue, host virtio.Host) error
	stop()
	pause() error
	resume() error
	close()
}

// Device is one network device.
type Device struct {
	taps     []*tapQueue
	pairs    []pair
	counters []Counters // by pair, so that they share no cache line
	vhost    bool
	mac      [macSize]byte // what the device is reset to
	control  virtio.Worker
	limits   [2]*limit.Limiter // to the guest and from it

	config sync.Mutex // guards the configuration space
	space  [configSize]byte

	mu       sync.Mutex // guards what follows, and the pairs
	queues   []*virtio.Queue
	features uint64
	host     virtio.Host // nil while no driver has the device
	active   int         // pairs in use
	paused   bool
	linkDown bool
	filter   filter
}

// New makes a network device on the queues of one TAP, a pair for each.
func New(taps []*os.File, opts Options) (*Device, error) {
	if len(opts.MAC) != macSize {
		return nil, qverr.New(qverr.NetMAC, "MAC address %v", opts.MAC)
	}
	if len(taps) == 0 || len(taps) > MaxPairs {
		return nil, qverr.New(qverr.Limit, "network device %v: %d pairs of queues: 1 to %d are possible", opts.MAC, len(taps), MaxPairs)
	}
	if opts.MTU == 0 {
		opts.MTU = defaultMTU
	}
	d := &Device{vhost: len(opts.Vhost) > 0, counters: make([]Counters, len(taps)), mac: [macSize]byte(opts.MAC)}
	d.limits = [2]*limit.Limiter{limit.New(opts.Limits), limit.New(opts.Limits)}
	d.control.Handle = d.command
	copy(d.space[:], opts.MAC)
	binary.LittleEndian.PutUint16(d.space[configStatus:], statusLinkUp)
	binary.LittleEndian.PutUint16(d.space[configPairs:], uint16(len(taps)))
	binary.LittleEndian.PutUint16(d.space[configMTU:], uint16(opts.MTU))
	for _, f := range taps {
		q, err := openTAP(f, len(taps) > 1)
		if err != nil {
			return nil, err
		}
		d.taps = append(d.taps, q)
	}
	if err := d.addPairs(opts); err != nil {
		return nil, err
	}
	return d, d.attach(1)
}

func (d *Device) addPairs(opts Options) error {
	if d.vhost && len(opts.Vhost) != len(d.taps) {
		return qverr.New(qverr.NetVhost, "network device %v: %d of vhost-net for %d pairs of queues", opts.MAC, len(opts.Vhost), len(d.taps))
	}
	if d.vhost && opts.Limits != (limit.Limits{}) {
		return errVhostLimit
	}
	for i, tap := range d.taps {
		if d.vhost {
			p, err := newVhost(tap, opts.Vhost[i], opts.Mem)
			if err != nil {
				return qverr.New(qverr.NetVhost, "network device %v: %w", opts.MAC, err)
			}
			d.pairs = append(d.pairs, p)
			continue
		}
		p, err := newUser(tap, &d.counters[i], d.limits[0], d.limits[1])
		if err != nil {
			return qverr.New(qverr.NetTAP, "network device %v: %w", opts.MAC, err)
		}
		d.pairs = append(d.pairs, p)
	}
	return nil
}

// errVhostLimit: vhost-net knows no limits.
var errVhostLimit = qverr.New(qverr.State, "the kernel moves the packets of this network device: it has no limits until it is started with one")

// SetLimits changes the limits at once. QV_ERR_STATE while the kernel moves the packets.
func (d *Device) SetLimits(l limit.Limits) error {
	if d.vhost {
		return errVhostLimit
	}
	if err := l.Validate(); err != nil {
		return err
	}
	for _, lim := range d.limits {
		lim.Set(l)
	}
	for _, p := range d.pairs {
		p.(*user).reopen()
	}
	return nil
}

// Limits are those that hold now.
func (d *Device) Limits() limit.Limits { return d.limits[0].Limits() }

// Vhost tells whether the kernel moves the packets.
func (d *Device) Vhost() bool { return d.vhost }

// Pairs is how many pairs of queues the guest uses now, 0 without a driver.
func (d *Device) Pairs() int {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.active
}

// LinkUp tells whether the cable is in.
func (d *Device) LinkUp() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return !d.linkDown
}

// Close releases the TAP and vhost. The device must not be active.
func (d *Device) Close() {
	for _, p := range d.pairs {
		p.close()
	}
	for _, t := range d.taps {
		t.file.Close()
	}
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeNet }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	f := featureMAC | featureMTU | featureStatus | featureControl | featureControlRX | featureControlMAC |
		featureAnnounce | featureGuestOffloads | d.pairs[0].features()
	if len(d.pairs) > 1 {
		f |= featureMultiQueue
	}
	return f
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 {
	sizes := make([]uint16, 0, 2*len(d.pairs)+1)
	for range 2 * len(d.pairs) {
		sizes = append(sizes, queueSize)
	}
	return append(sizes, controlSize)
}

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint32, p []byte) {
	d.config.Lock()
	defer d.config.Unlock()
	virtio.ConfigBytes(d.space[:], off, p)
}

// WriteConfig implements virtio.Device: the MAC is set by the control queue.
func (d *Device) WriteConfig(uint32, []byte) {}

// setStatus changes bits of the status in the configuration space.
func (d *Device) setStatus(set, clear uint16) {
	d.config.Lock()
	defer d.config.Unlock()
	v := binary.LittleEndian.Uint16(d.space[configStatus:])
	binary.LittleEndian.PutUint16(d.space[configStatus:], v&^clear|set)
}

func (d *Device) setMAC(mac [macSize]byte) {
	d.config.Lock()
	defer d.config.Unlock()
	copy(d.space[:], mac[:])
}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, queues []*virtio.Queue, host virtio.Host) error {
	// Without several pairs the control queue is the third (section 5.1.2).
	control := 2
	if features&featureMultiQueue != 0 {
		control = 2 * len(d.pairs)
	}
	if features&featureControl == 0 {
		control = -1
	}
	d.mu.Lock()
	d.queues, d.features, d.host = queues, features, host
	err := d.setOffloads(features)
	if err == nil {
		err = d.usePairs(1)
	}
	d.mu.Unlock()
	if err != nil {
		return err
	}
	if control >= 0 && queues[control] != nil {
		d.control.Start(queues[control], host)
	}
	return nil
}

// usePairs makes the first n pairs work and the others rest. The lock is held.
func (d *Device) usePairs(n int) error {
	for ; d.active > n; d.active-- {
		d.pairs[d.active-1].stop()
	}
	if err := d.attach(n); err != nil {
		return err
	}
	for d.active < n {
		rx, tx := d.queues[2*d.active], d.queues[2*d.active+1]
		if rx == nil || tx == nil {
			return qverr.New(qverr.Inval, "the driver left out a queue of pair %d", d.active)
		}
		p := d.pairs[d.active]
		// Counted first: what began is stopped in any case.
		d.active++
		if err := p.start(d.features, rx, tx, d.host); err != nil {
			return err
		}
	}
	return nil
}

// attach gives the first n queues of the TAP packets and takes the others out, so
// that no flow is steered to a queue that nobody reads.
func (d *Device) attach(n int) error {
	for i, t := range d.taps {
		if err := t.attach(i < n); err != nil {
			return err
		}
	}
	return nil
}

// setOffloads lets the TAP hand over what the driver of the guest can take.
func (d *Device) setOffloads(features uint64) error {
	flags := 0
	for _, o := range offloads {
		if features&o.feature != 0 {
			flags |= o.flag
		}
	}
	if flags&unix.TUN_F_CSUM == 0 {
		flags = 0 // there is no segmentation without checksums
	}
	if err := unix.IoctlSetInt(d.taps[0].fd, unix.TUNSETOFFLOAD, flags); err != nil {
		return qverr.New(qverr.NetTAP, "offloads %#x of TAP: %w", flags, err)
	}
	return nil
}

// Deactivate implements virtio.Device. The next driver finds the device as new.
func (d *Device) Deactivate() {
	d.control.Stop()
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.host == nil {
		return
	}
	_ = d.usePairs(0) // taking pairs away does not fail
	_ = d.attach(1)
	d.host, d.queues, d.filter = nil, nil, filter{}
	_ = d.applyFilter() // none
	d.setMAC(d.mac)
	d.setStatus(0, statusAnnounce)
}

// Pause implements virtio.Device.
func (d *Device) Pause() error {
	d.control.Pause()
	d.mu.Lock()
	defer d.mu.Unlock()
	d.paused = true
	return d.run()
}

// Resume implements virtio.Device. After a pause the switches may have forgotten
// where the guest is, so it is asked to announce itself.
func (d *Device) Resume() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.control.Resume()
	if d.paused && d.host != nil && d.features&featureAnnounce != 0 {
		d.setStatus(statusAnnounce, 0)
		d.host.ConfigChanged()
	}
	d.paused = false
	return d.run()
}

// SetLink pulls the cable, or puts it back. While it is out nothing is moved.
func (d *Device) SetLink(up bool) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.linkDown == !up {
		return nil
	}
	d.linkDown = !up
	if up {
		d.setStatus(statusLinkUp, 0)
	} else {
		d.setStatus(0, statusLinkUp)
	}
	if d.host != nil {
		d.host.ConfigChanged()
	}
	return d.run()
}

// run lets all pairs work, or stop, as is wanted now. The lock is held.
func (d *Device) run() error {
	for _, p := range d.pairs {
		do := p.resume
		if d.paused || d.linkDown {
			do = p.pause
		}
		if err := do(); err != nil {
			return err
		}
	}
	return nil
}
