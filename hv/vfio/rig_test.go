package vfio_test

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/pci"
	hvfio "quantavirt/hv/vfio"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
)

// hardware is a function in memory, like a network card: BAR 0 of 64 KiB with the MSI-X
// structures in its last page but one, BAR 2 for I/O, BAR 3 of 256 bytes.
type hardware struct {
	cfg     [256]byte
	bar0    []byte
	small   [256]byte
	config  map[int64][]byte // last write by offset
	resets  int
	noReset bool
	msix    []int32
	msi     []int32
	vectors int // that the host has
	request int32
	failure int32
	closed  bool
	outside int // accesses to what no driver may touch
}

const (
	tableOff = 0xe000
	pbaOff   = 0xe800
	vectors  = 8
)

func newHardware() *hardware {
	h := &hardware{bar0: make([]byte, 0x10000), config: map[int64][]byte{}, vectors: 64, request: -1, failure: -1}
	le := binary.LittleEndian
	le.PutUint32(h.cfg[0:], 0x1572_8086)
	le.PutUint16(h.cfg[6:], 0x10)
	le.PutUint32(h.cfg[8:], 0x02_0000_01)
	le.PutUint32(h.cfg[0x10:], 0xc)         // 64 bits, prefetchable
	le.PutUint32(h.cfg[0x18:], 0xe001)      // I/O
	le.PutUint32(h.cfg[0x1c:], 0xfe00_0000) // 32 bits
	le.PutUint32(h.cfg[0x2c:], 0x0001_8086)
	le.PutUint32(h.cfg[0x30:], 0xfffe_0001) // ROM
	h.cfg[0x34], h.cfg[0x3d] = 0x40, 1
	cap := func(off int, id, next byte, body ...byte) { copy(h.cfg[off:], append([]byte{id, next}, body...)) }
	cap(0x40, 0x01, 0x50, 0x23, 0xfe, 0x03, 0x01, 0, 0) // power management, in D3
	cap(0x50, 0x05, 0x70, 0x84, 0x01)                   // MSI, 4 vectors, 64 bits, masking
	cap(0x70, 0x11, 0xa0, vectors-1, 0, 0, 0xe0, 0, 0, 0, 0xe8, 0, 0)
	cap(0xa0, 0x10, 0xe0, 0x02, 0x00, 0x20, 0x80, 0x00, 0x10) // PCI Express endpoint with FLR
	cap(0xe0, 0x03, 0xf0, 0xff, 0xff)                         // VPD: not for guests
	cap(0xf0, 0x09, 0x00, 8, 1, 2, 3, 4, 5)                   // vendor's
	return h
}

func (h *hardware) Address() string { return "0000:01:00.0" }
func (h *hardware) ReadConfig(off int64, p []byte) error {
	copy(p, h.cfg[off:])
	return nil
}
func (h *hardware) WriteConfig(off int64, p []byte) error {
	h.config[off] = append([]byte(nil), p...)
	return nil
}
func (h *hardware) Region(bar int) vfio.Region {
	switch bar {
	case 0:
		return vfio.Region{Size: uint64(len(h.bar0)), Mapped: true}
	case 2:
		return vfio.Region{Size: 32}
	case 3:
		return vfio.Region{Size: uint64(len(h.small))}
	}
	return vfio.Region{}
}
func (h *hardware) MapRegion(bar int, off uint64, length int) ([]byte, error) {
	if bar != 0 {
		return nil, fmt.Errorf("BAR %d cannot be mapped", bar)
	}
	return h.bar0[off:][:length:length], nil
}
func (h *hardware) region(bar int, off uint64, n int) []byte {
	mem := h.bar0
	if bar == 3 {
		mem = h.small[:]
	}
	if bar == 0 && off+uint64(n) > tableOff && off < tableOff+16*vectors || bar != 0 && bar != 3 {
		h.outside++
	}
	return mem[off:][:n]
}
func (h *hardware) ReadRegion(bar int, off uint64, p []byte) error {
	copy(p, h.region(bar, off, len(p)))
	return nil
}
func (h *hardware) WriteRegion(bar int, off uint64, p []byte) error {
	copy(h.region(bar, off, len(p)), p)
	return nil
}
func (h *hardware) enable(to *[]int32, fds []int32) error {
	if len(fds) > h.vectors {
		return qverr.New(qverr.NoDev, "%d of %d vectors are left", h.vectors, len(fds))
	}
	*to = append([]int32(nil), fds...)
	return nil
}
func (h *hardware) EnableMSIX(fds []int32) error { return h.enable(&h.msix, fds) }
func (h *hardware) EnableMSI(fds []int32) error  { return h.enable(&h.msi, fds) }
func (h *hardware) OnError(fd int32) error       { h.failure = fd; return nil }
func (h *hardware) OnRequest(fd int32) error     { h.request = fd; return nil }
func (h *hardware) CanReset() bool               { return !h.noReset }
func (h *hardware) Reset() error                 { h.resets++; return nil }
func (h *hardware) Close()                       { h.closed = true }

func (h *hardware) command() uint16 { return binary.LittleEndian.Uint16(append(h.config[4], 0, 0)) }

// host is a machine without KVM.
type host struct {
	next   uint32
	routes map[uint32]pci.Message
	irqs   map[uint32]int
	mapped map[uint64][]byte
}

func (h *host) AllocGSI() (uint32, error)                { h.next++; return h.next, nil }
func (h *host) RouteMSI(gsi uint32, m pci.Message) error { h.routes[gsi] = m; return nil }
func (h *host) AttachIRQ(gsi uint32, fd int) error       { h.irqs[gsi] = fd; return nil }
func (h *host) DetachIRQ(gsi uint32, _ int) error        { delete(h.irqs, gsi); return nil }
func (h *host) AttachDoorbell(uint64, int, int) error    { return nil }
func (h *host) DetachDoorbell(uint64, int, int) error    { return nil }
func (h *host) MapMemory(addr uint64, mem []byte) error {
	for at, m := range h.mapped {
		if addr < at+uint64(len(m)) && at < addr+uint64(len(mem)) {
			return unix.EEXIST
		}
	}
	h.mapped[addr] = mem
	return nil
}
func (h *host) UnmapMemory(addr uint64, mem []byte) error {
	if len(h.mapped[addr]) != len(mem) {
		return unix.ENOENT
	}
	delete(h.mapped, addr)
	return nil
}

const (
	lowBase  = 0xd000_0000
	lowEnd   = 0xfec0_0000
	highBase = 0x1_0000_0000
)

type rig struct {
	hw     *hardware
	host   *host
	bus    *pci.Bus
	f      *hvfio.Function
	failed chan error
}

func newRig(t testing.TB, hw *hardware) *rig {
	t.Helper()
	r := &rig{hw: hw, host: &host{routes: map[uint32]pci.Message{}, irqs: map[uint32]int{}, mapped: map[uint64][]byte{}}, failed: make(chan error, 1)}
	f, err := hvfio.New(hw, hvfio.Options{Fail: func(err error) { r.failed <- err }})
	if err != nil {
		t.Fatal(err)
	}
	r.f = f
	r.bus = pci.NewBus(r.host, pci.Windows{Low: pci.Window{Base: lowBase, End: lowEnd}, High: pci.Window{Base: highBase, End: highBase << 2}}, func(error) {})
	if err := errors.Join(r.bus.Add(5, f.PCI()), r.bus.Place()); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { f.Close(); r.bus.Close() })
	return r
}

func (r *rig) get(off int) uint32 {
	data := make([]byte, 4)
	r.bus.ReadECAM(5<<15|uint64(off), data)
	return binary.LittleEndian.Uint32(data)
}

func (r *rig) set(off int, v uint32) {
	r.bus.WriteECAM(5<<15|uint64(off), binary.LittleEndian.AppendUint32(nil, v))
}

func (r *rig) set16(off int, v uint16) {
	r.bus.WriteECAM(5<<15|uint64(off), binary.LittleEndian.AppendUint16(nil, v))
}

func (r *rig) base() uint64 { return uint64(r.get(0x14))<<32 | uint64(r.get(0x10)&^0xf) }

func signal(t *testing.T, fd int32) {
	t.Helper()
	if _, err := unix.Write(int(fd), binary.NativeEndian.AppendUint64(nil, 1)); err != nil {
		t.Fatal(os.NewSyscallError("write", err))
	}
}
