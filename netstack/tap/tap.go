package tap

import (
	"errors"
	"os"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/bridge"
	"quantavirt/netstack/rtnl"
)

// HeaderSize is the size of the header before each frame: struct
// virtio_net_hdr_v1 of virtio 1.0 (5.1.6), which vhost-net uses as well.
const HeaderSize = 12

// MTU limits of IPv4 over a virtual Ethernet (RFC 791; the kernel's tun driver).
const (
	MinMTU = 68
	MaxMTU = 65521
)

// Config is the wanted state of a TAP device.
type Config struct {
	Name   string
	Bridge string
	MTU    int // bytes
	Queues int // 1 to MaxQueues; 0 means 1
	Owner  Owner
}

// MaxQueues is how many queues a device may have; Linux has room for 256.
const MaxQueues = 16

// CheckMTU returns an error with QV_NET_ERR_MTU for what no device takes.
func CheckMTU(mtu int) error {
	if mtu < MinMTU || mtu > MaxMTU {
		return qverr.New(qverr.NetMTU, "MTU %d is not between %d and %d", mtu, MinMTU, MaxMTU)
	}
	return nil
}

// Create makes the device, up and attached to its bridge, with IFF_VNET_HDR,
// headers of HeaderSize and no offloads, and returns a file for each of its queues.
// The caller owns the files, the device ends with the last copy of them. Errors
// carry QV_NET_ERR_TAP, QV_NET_ERR_MTU or QV_NET_ERR_BRIDGE.
func Create(cfg Config) ([]*os.File, error) {
	if err := CheckMTU(cfg.MTU); err != nil {
		return nil, err
	}
	if cfg.Queues < 0 || cfg.Queues > MaxQueues {
		return nil, qverr.New(qverr.NetTAP, "TAP device %s with %d queues: 1 to %d are possible", cfg.Name, cfg.Queues, MaxQueues)
	}
	files, err := open(cfg.Name, max(cfg.Queues, 1))
	if err == nil {
		err = configure(cfg)
	}
	if err != nil {
		for _, f := range files {
			f.Close()
		}
		return nil, err
	}
	return files, nil
}

// open creates the device and fails if the name is taken: another owner's
// device must not be joined. It returns the queues that it made in any case.
func open(name string, queues int) (files []*os.File, err error) {
	for i := range queues {
		flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if queues > 1 {
			flags |= unix.IFF_MULTI_QUEUE
		}
		if i == 0 {
			flags |= unix.IFF_TUN_EXCL
		}
		f, err := openQueue(name, flags)
		if err != nil {
			return files, err
		}
		files = append(files, f)
	}
	return files, nil
}

func openQueue(name string, flags uint16) (*os.File, error) {
	const path = "/dev/net/tun"
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, qverr.New(qverr.NetTAP, "open %s: %w", path, err)
	}
	f := os.NewFile(uintptr(fd), name)
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		f.Close()
		return nil, qverr.New(qverr.NetTAP, "TAP device name %q: %w", name, err)
	}
	ifr.SetUint16(flags)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		f.Close()
		if errors.Is(err, unix.EBUSY) {
			return nil, qverr.New(qverr.NetTAP, "TAP device %s belongs to another process: %w", name, err)
		}
		return nil, qverr.New(qverr.NetTAP, "create TAP device %s: %w", name, err)
	}
	if err := unix.IoctlSetPointerInt(fd, unix.TUNSETVNETHDRSZ, HeaderSize); err != nil {
		f.Close()
		return nil, qverr.New(qverr.NetTAP, "set the header size of TAP device %s: %w", name, err)
	}
	return f, nil
}

func configure(cfg Config) error {
	link, err := rtnl.Link(cfg.Name)
	if err == nil && link == nil {
		err = errors.New("it is gone again")
	}
	if err != nil {
		return fail(cfg.Name, "look up", err)
	}
	if err := rtnl.DisableIPv6(cfg.Name); err != nil {
		return fail(cfg.Name, "switch IPv6 off on", err)
	}
	if err := netlink.LinkSetAlias(link, cfg.Owner.String()); err != nil {
		return fail(cfg.Name, "mark", err)
	}
	if err := netlink.LinkSetMTU(link, cfg.MTU); err != nil {
		return qverr.New(qverr.NetMTU, "set MTU %d on TAP device %s: %w", cfg.MTU, cfg.Name, err)
	}
	if _, err := bridge.Attach(link, cfg.Bridge); err != nil {
		return err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return fail(cfg.Name, "set up", err)
	}
	return nil
}

// Remove deletes the device whoever holds it; it is no error if there is none.
func Remove(name string) error {
	link, err := rtnl.Link(name)
	if err != nil {
		return fail(name, "look up", err)
	}
	if link == nil {
		return nil
	}
	if _, ok := OwnerOf(link); !ok {
		return qverr.New(qverr.NetTAP, "link %s is not a TAP device of ours", name)
	}
	if err := netlink.LinkDel(link); err != nil && !rtnl.IsNotFound(err) {
		return fail(name, "remove", err)
	}
	return nil
}

func fail(name, what string, err error) error {
	return qverr.New(qverr.NetTAP, "%s TAP device %s: %w", what, name, err)
}
