// Package net is the virtio network device (virtio 1.2, section 5.1) on a TAP:
// through the kernel's vhost-net when a descriptor of it is given, in this process
// otherwise. There is one pair of queues and no control queue.
//
// The TAP must have been made with IFF_TAP, IFF_NO_PI and IFF_VNET_HDR.
package net

import (
	"encoding/binary"
	"net"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

const (
	queueSize = virtio.MaxQueueSize
	rxQueue   = 0
	txQueue   = 1

	headerSize = 12 // struct virtio_net_hdr_v1
	configSize = 12
	linkUp     = 1
	defaultMTU = 1500
)

// Feature bits, section 5.1.3.
const (
	featureCSum      = 1 << 0
	featureGuestCSum = 1 << 1
	featureMTU       = 1 << 3
	featureMAC       = 1 << 5
	featureGuestTSO4 = 1 << 7
	featureGuestTSO6 = 1 << 8
	featureGuestECN  = 1 << 9
	featureHostTSO4  = 1 << 11
	featureHostTSO6  = 1 << 12
	featureHostECN   = 1 << 13
	featureMergeable = 1 << 15
	featureStatus    = 1 << 16
)

// What the driver accepts of these is what the TAP may hand over without doing
// it first.
var offloads = []struct {
	feature uint64
	flag    int
}{
	{featureGuestCSum, unix.TUN_F_CSUM},
	{featureGuestTSO4, unix.TUN_F_TSO4},
	{featureGuestTSO6, unix.TUN_F_TSO6},
	{featureGuestECN, unix.TUN_F_TSO_ECN},
}

// Options of a network device.
type Options struct {
	MAC net.HardwareAddr
	MTU int // 0 means 1500
	// Vhost is an open /dev/vhost-net; nil moves the packets in this process. The
	// device takes it over, and the TAP.
	Vhost *os.File
	Mem   *memory.Memory
}

// backend moves packets between the queues and the TAP.
type backend interface {
	features() uint64
	start(features uint64, rx, tx *virtio.Queue, host virtio.Host) error
	stop()
	pause() error
	resume() error
	close()
}

// Device is one network device.
type Device struct {
	Counters Counters

	tap     *os.File
	backend backend
	vhost   bool
	space   [configSize]byte
}

// New makes a network device on tap.
func New(tap *os.File, opts Options) (*Device, error) {
	if len(opts.MAC) != 6 {
		return nil, qverr.New(qverr.NetMAC, "MAC address %v", opts.MAC)
	}
	if opts.MTU == 0 {
		opts.MTU = defaultMTU
	}
	d := &Device{tap: tap, vhost: opts.Vhost != nil}
	copy(d.space[:], opts.MAC)
	binary.LittleEndian.PutUint16(d.space[6:], linkUp)
	binary.LittleEndian.PutUint16(d.space[10:], uint16(opts.MTU))
	if err := checkTAP(tap); err != nil {
		return nil, err
	}
	if d.vhost {
		b, err := newVhost(tap, opts.Vhost, opts.Mem)
		if err != nil {
			return nil, qverr.New(qverr.NetVhost, "network device %v: %w", opts.MAC, err)
		}
		d.backend = b
		return d, nil
	}
	b, err := newUser(tap, &d.Counters)
	if err != nil {
		return nil, qverr.New(qverr.NetTAP, "network device %v: %w", opts.MAC, err)
	}
	d.backend = b
	return d, nil
}

// checkTAP refuses a descriptor that is no TAP of the right kind, and sets the
// length of the header before each packet.
func checkTAP(tap *os.File) error {
	req, err := unix.NewIfreq("tap")
	if err != nil {
		return qverr.New(qverr.NetTAP, "TAP: %w", err)
	}
	fd := int(tap.Fd())
	if err := unix.IoctlIfreq(fd, unix.TUNGETIFF, req); err != nil {
		return qverr.New(qverr.NetTAP, "%s is no TAP: %w", tap.Name(), err)
	}
	const want = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR
	if flags := req.Uint16(); flags&want != want {
		return qverr.New(qverr.NetTAP, "TAP %s has flags %#x and needs %#x", req.Name(), flags, want)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, headerSize); err != nil {
		return qverr.New(qverr.NetTAP, "header size of TAP %s: %w", req.Name(), err)
	}
	return nil
}

// Vhost tells whether the kernel moves the packets.
func (d *Device) Vhost() bool { return d.vhost }

// Close releases the TAP and vhost. The device must not be active.
func (d *Device) Close() {
	d.backend.close()
	d.tap.Close()
}

// Type implements virtio.Device.
func (d *Device) Type() uint16 { return virtio.TypeNet }

// Features implements virtio.Device.
func (d *Device) Features() uint64 {
	return featureMAC | featureMTU | featureStatus | d.backend.features()
}

// QueueSizes implements virtio.Device.
func (d *Device) QueueSizes() []uint16 { return []uint16{queueSize, queueSize} }

// ReadConfig implements virtio.Device.
func (d *Device) ReadConfig(off uint32, p []byte) { virtio.ConfigBytes(d.space[:], off, p) }

// WriteConfig implements virtio.Device.
func (d *Device) WriteConfig(uint32, []byte) {}

// Activate implements virtio.Device.
func (d *Device) Activate(features uint64, queues []*virtio.Queue, host virtio.Host) error {
	if queues[rxQueue] == nil || queues[txQueue] == nil {
		return qverr.New(qverr.Inval, "the driver left out a queue of the pair")
	}
	flags := 0
	for _, o := range offloads {
		if features&o.feature != 0 {
			flags |= o.flag
		}
	}
	if err := unix.IoctlSetInt(int(d.tap.Fd()), unix.TUNSETOFFLOAD, flags); err != nil {
		return qverr.New(qverr.NetTAP, "offloads %#x of TAP: %w", flags, err)
	}
	return d.backend.start(features, queues[rxQueue], queues[txQueue], host)
}

// Deactivate implements virtio.Device.
func (d *Device) Deactivate() { d.backend.stop() }

// Pause implements virtio.Device.
func (d *Device) Pause() error { return d.backend.pause() }

// Resume implements virtio.Device.
func (d *Device) Resume() error { return d.backend.resume() }
