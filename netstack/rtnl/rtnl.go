package rtnl

import (
	"errors"
	"net"
	"net/netip"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

// tries bounds Retry: a dump is interrupted by a change of the kernel's
// tables, and changes come in bursts.
const tries = 32

// Retry calls list again while the kernel says that its tables changed under
// the dump.
func Retry[T any](list func() (T, error)) (T, error) {
	var v T
	var err error
	for range tries {
		v, err = list()
		if !errors.Is(err, netlink.ErrDumpInterrupted) && !errors.Is(err, unix.EINTR) {
			break
		}
	}
	return v, err
}

// Links lists all links.
func Links() ([]netlink.Link, error) { return Retry(netlink.LinkList) }

// Link finds a link by its name; nil without an error if there is none.
func Link(name string) (netlink.Link, error) {
	l, err := Retry(func() (netlink.Link, error) { return netlink.LinkByName(name) })
	if IsNotFound(err) {
		return nil, nil
	}
	return l, err
}

// IsNotFound reports whether err says that a link does not exist.
func IsNotFound(err error) bool {
	var nf netlink.LinkNotFoundError
	return errors.As(err, &nf) || errors.Is(err, unix.ENODEV)
}

// Addrs lists the IPv4 addresses of a link.
func Addrs(l netlink.Link) ([]netlink.Addr, error) {
	return Retry(func() ([]netlink.Addr, error) { return netlink.AddrList(l, netlink.FAMILY_V4) })
}

// Routes lists the IPv4 routes of the main table over a link.
func Routes(l netlink.Link) ([]netlink.Route, error) {
	return Retry(func() ([]netlink.Route, error) { return netlink.RouteList(l, netlink.FAMILY_V4) })
}

// Prefix is n as a netip.Prefix with its host bits; invalid for nil.
func Prefix(n *net.IPNet) netip.Prefix {
	if n == nil {
		return netip.Prefix{}
	}
	a, ok := netip.AddrFromSlice(n.IP)
	if !ok {
		return netip.Prefix{}
	}
	ones, _ := n.Mask.Size()
	return netip.PrefixFrom(a.Unmap(), ones)
}

// IPNet is p in the form of package net, with its host bits.
func IPNet(p netip.Prefix) *net.IPNet {
	return &net.IPNet{IP: p.Addr().AsSlice(), Mask: net.CIDRMask(p.Bits(), p.Addr().BitLen())}
}

// IsUp reports whether a link was set up, with or without a carrier.
func IsUp(l netlink.Link) bool { return l.Attrs().Flags&net.FlagUp != 0 }

// HasCarrier reports whether a link is up and its lower layer works.
func HasCarrier(l netlink.Link) bool {
	return IsUp(l) && l.Attrs().RawFlags&unix.IFF_LOWER_UP != 0
}

// CanSend reports whether the kernel's link watch has seen the carrier. Before
// that a link may still lack its queue and drop what is sent; or it works and
// the flag is up to a second late.
func CanSend(l netlink.Link) bool { return l.Attrs().RawFlags&unix.IFF_RUNNING != 0 }
