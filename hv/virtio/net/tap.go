package net

import (
	"os"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// tapQueue is one queue of a TAP.
type tapQueue struct {
	file     *os.File
	fd       int // of file, for ioctls
	several  bool
	attached bool
}

// openTAP refuses a descriptor that is no TAP of the right kind, and sets the
// length of the header before each packet.
func openTAP(f *os.File, several bool) (*tapQueue, error) {
	req, err := unix.NewIfreq("tap")
	if err != nil {
		return nil, qverr.New(qverr.NetTAP, "TAP: %w", err)
	}
	t := &tapQueue{file: f, fd: int(f.Fd()), several: several, attached: true}
	if err := unix.IoctlIfreq(t.fd, unix.TUNGETIFF, req); err != nil {
		return nil, qverr.New(qverr.NetTAP, "%s is no TAP: %w", f.Name(), err)
	}
	want := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if several {
		want |= unix.IFF_MULTI_QUEUE
	}
	if flags := req.Uint16(); flags&want != want {
		return nil, qverr.New(qverr.NetTAP, "TAP %s has flags %#x and needs %#x", req.Name(), flags, want)
	}
	if err := unix.IoctlSetPointerInt(t.fd, unix.TUNSETVNETHDRSZ, headerSize); err != nil {
		return nil, qverr.New(qverr.NetTAP, "header size of TAP %s: %w", req.Name(), err)
	}
	return t, nil
}

// attach puts the queue among those to which the TAP steers flows, or takes it out.
// A TAP with one queue always has it.
func (t *tapQueue) attach(on bool) error {
	if !t.several || t.attached == on {
		return nil
	}
	req, err := unix.NewIfreq("")
	if err != nil {
		return qverr.New(qverr.NetTAP, "queue of TAP: %w", err)
	}
	flags := uint16(unix.IFF_DETACH_QUEUE)
	if on {
		flags = unix.IFF_ATTACH_QUEUE
	}
	req.SetUint16(flags)
	if err := unix.IoctlIfreq(t.fd, unix.TUNSETQUEUE, req); err != nil {
		return qverr.New(qverr.NetTAP, "attach a queue of the TAP (%v): %w", on, err)
	}
	t.attached = on
	return nil
}

const (
	macSize = 6
	// maxFilter is how many addresses of each kind are filtered; with more, all
	// pass. The kernel compares eight of them and takes hashes of the others.
	maxFilter = 64
	// tunAllMulti is TUN_FLT_ALLMULTI of linux/if_tun.h.
	tunAllMulti = 1
)

// filter is which frames the guest wants, besides those to its own address and to
// all. The zero filter passes everything: the driver has not asked yet.
type filter struct {
	set                bool
	promiscuous        bool
	allMulticast       bool
	unicast, multicast [][macSize]byte
}

// tunFilter is struct tun_filter of linux/if_tun.h.
type tunFilter struct {
	flags, count uint16
	addresses    [2 + 2*maxFilter][macSize]byte
}

// table makes the kernel's form of the filter; the kernel passes everything with a
// count of 0.
func (f *filter) table(mac [macSize]byte) *tunFilter {
	t := &tunFilter{}
	if !f.set || f.promiscuous || len(f.unicast) > maxFilter {
		return t
	}
	add := func(list ...[macSize]byte) {
		for _, a := range list {
			t.addresses[t.count] = a
			t.count++
		}
	}
	add(mac)
	// Those of one host come first: the kernel gives up on one behind the eighth.
	add(f.unicast...)
	add([macSize]byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff})
	if f.allMulticast || len(f.multicast) > maxFilter {
		t.flags = tunAllMulti
		return t
	}
	add(f.multicast...)
	return t
}

// setFilter has the kernel drop what the guest does not want, before it is queued.
func (t *tapQueue) setFilter(table *tunFilter) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(t.fd), unix.TUNSETTXFILTER, uintptr(unsafe.Pointer(table)))
	if errno != 0 {
		return qverr.New(qverr.NetTAP, "filter of TAP: %w", errno)
	}
	return nil
}
