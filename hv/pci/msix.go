package pci

import (
	"encoding/binary"
	"errors"
	"sync"
	"sync/atomic"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

const (
	msixEntry       = 16
	msixMaxVectors  = 2048
	msixEnable      = 1 << 15
	msixFuncMask    = 1 << 14
	msixVectorMask  = 1
	msixControlOff  = 2 // message control within the capability
	msixControlHigh = 3 // its byte with the two writable bits
)

// MSIX is the interrupt table of a device. It serves the part of a BAR that
// holds the table and the pending bits.
type MSIX struct {
	dev        *Device
	host       Host
	capOff     int
	bar        int    // of the table
	pbaBAR     int    // of the pending bits
	table, pba uint64 // offsets in the two

	onEnable func(on bool)

	// enabled is the enable bit of control, for Notify: the queues of a device share
	// no lock.
	enabled atomic.Bool

	mu      sync.Mutex
	vectors []vector
	control uint16 // enable and function mask bits
}

func (m *MSIX) setControl(v uint16) {
	m.control = v
	m.enabled.Store(v&msixEnable != 0)
}

type vector struct {
	fd       int
	gsi      uint32
	addr     uint64
	data     uint32
	mask     uint32
	routed   bool
	route    Message
	attached bool
}

// AddMSIX gives the device count interrupt vectors, with the table at offset
// table and the pending bits at offset pba of BAR index, both multiples of 8.
// The BAR's handler sees no access to the two.
func (d *Device) AddMSIX(index, count int, table, pba uint64) (*MSIX, error) {
	return d.AddSplitMSIX(count, index, table, index, pba)
}

// AddSplitMSIX is AddMSIX with the pending bits in a BAR of their own.
func (d *Device) AddSplitMSIX(count, index int, table uint64, pbaIndex int, pba uint64) (*MSIX, error) {
	tableSize, pbaSize := uint64(count)*msixEntry, uint64(count+63)/64*8
	if count < 1 || count > msixMaxVectors || table%8 != 0 || pba%8 != 0 || d.msix != nil ||
		!d.inBAR(index, table, int(tableSize)) || !d.inBAR(pbaIndex, pba, int(pbaSize)) ||
		index == pbaIndex && table < pba+pbaSize && pba < table+tableSize {
		return nil, qverr.New(qverr.Inval, "%s: MSI-X with %d vectors at %#x of BAR %d and %#x of BAR %d", d.name, count, table, index, pba, pbaIndex)
	}
	body, mask := make([]byte, 10), make([]byte, 10)
	binary.LittleEndian.PutUint16(body, uint16(count-1))
	binary.LittleEndian.PutUint32(body[2:], uint32(table)|uint32(index))
	binary.LittleEndian.PutUint32(body[6:], uint32(pba)|uint32(pbaIndex))
	mask[1] = (msixEnable | msixFuncMask) >> 8
	vectors, err := newVectors(d.name, count)
	if err != nil {
		return nil, err
	}
	m := &MSIX{dev: d, bar: index, pbaBAR: pbaIndex, table: table, pba: pba, vectors: vectors}
	for i := range m.vectors {
		m.vectors[i].mask = msixVectorMask
	}
	off, err := d.AddCapability(CapMSIX, body, mask, m)
	if err != nil {
		m.close()
		return nil, err
	}
	m.capOff = off
	d.msix = m
	return m, nil
}

// Vectors is the number of interrupt vectors.
func (m *MSIX) Vectors() int { return len(m.vectors) }

// Notify raises vector. A masked vector stays pending; nothing happens while
// MSI-X is off or when the vector does not exist.
func (m *MSIX) Notify(v int) {
	if v < 0 || v >= len(m.vectors) {
		return
	}
	if !m.enabled.Load() {
		return
	}
	one := [8]byte{1}
	// It can only fail with EAGAIN, at 2^64-1 pending notifications.
	_, _ = unix.Write(m.vectors[v].fd, one[:])
}

// EventFD is the eventfd whose signal raises vector, for vhost and VFIO. It is
// -1 when the vector does not exist; it stays owned by m.
func (m *MSIX) EventFD(v int) int {
	if v < 0 || v >= len(m.vectors) {
		return -1
	}
	return m.vectors[v].fd
}

// OnEnable calls f when the guest has switched MSI-X on or off, or a reset off. It
// must not access configuration space through the Bus.
func (m *MSIX) OnEnable(f func(on bool)) { m.onEnable = f }

// tell calls f of OnEnable when the bit differs from what it was before.
func (m *MSIX) tell(before uint16) {
	if on := m.Enabled(); m.onEnable != nil && on != (before&msixEnable != 0) {
		m.onEnable(on)
	}
}

// Enabled tells whether the guest has switched MSI-X on.
func (m *MSIX) Enabled() bool { return m.enabled.Load() }

// part is what serves off of a BAR: the table, the pending bits, or nil.
func (m *MSIX) part(bar int, off uint64) BARHandler {
	n := uint64(len(m.vectors))
	switch {
	case bar == m.bar && off >= m.table && off < m.table+n*msixEntry:
		return m
	case bar == m.pbaBAR && off >= m.pba && off < m.pba+(n+63)/64*8:
		return pendingBits{m}
	}
	return nil
}

// pendingBits are read-only.
type pendingBits struct{ m *MSIX }

func (p pendingBits) ReadBAR(off uint64, data []byte) { p.m.read(off, data, p.m.pending32) }
func (p pendingBits) WriteBAR(uint64, []byte)         {}

// ReadBAR serves the table. An access must be aligned and have 4 or 8 bytes (PCI 3.0,
// 6.8.2); any other reads as ones.
func (m *MSIX) ReadBAR(off uint64, data []byte) { m.read(off, data, m.read32) }

func (m *MSIX) read(off uint64, data []byte, read32 func(off uint64) uint32) {
	ones(data)
	if !aligned(off, len(data)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i < len(data); i += 4 {
		binary.LittleEndian.PutUint32(data[i:], read32(off+uint64(i)))
	}
}

// WriteBAR serves the table.
func (m *MSIX) WriteBAR(off uint64, data []byte) {
	if !aligned(off, len(data)) {
		return
	}
	m.mu.Lock()
	defer m.mu.Unlock()
	for i := 0; i < len(data); i += 4 {
		m.write32(off+uint64(i), binary.LittleEndian.Uint32(data[i:]))
	}
}

func aligned(off uint64, n int) bool { return (n == 4 || n == 8) && off%uint64(n) == 0 }

func (m *MSIX) read32(off uint64) uint32 {
	v := &m.vectors[(off-m.table)/msixEntry]
	switch (off - m.table) % msixEntry {
	case 0:
		return uint32(v.addr)
	case 4:
		return uint32(v.addr >> 32)
	case 8:
		return v.data
	default:
		return v.mask
	}
}

func (m *MSIX) pending32(off uint64) uint32 {
	var word uint32
	first := int(off-m.pba) * 8
	for i := first; i < first+32 && i < len(m.vectors); i++ {
		if m.vectors[i].pending() {
			word |= 1 << (i - first)
		}
	}
	return word
}

func (m *MSIX) write32(off uint64, value uint32) {
	v := &m.vectors[(off-m.table)/msixEntry]
	switch (off - m.table) % msixEntry {
	case 0:
		v.addr = v.addr&^0xffff_ffff | uint64(value&^3)
	case 4:
		v.addr = v.addr&0xffff_ffff | uint64(value)<<32
	case 8:
		v.data = value
	default:
		v.mask = value & msixVectorMask
	}
	m.apply(v)
}

// ReadConfig leaves the stored bytes as they are.
func (m *MSIX) ReadConfig(int, []byte) {}

// WriteConfig follows the enable and function mask bits.
func (m *MSIX) WriteConfig(int, []byte) { m.tell(m.controlWritten()) }

// controlWritten makes the state that of the control register, and returns it as it was.
func (m *MSIX) controlWritten() (before uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.control
	control := uint16(m.dev.config[m.capOff+msixControlHigh]) << 8 & (msixEnable | msixFuncMask)
	if m.control&msixEnable == 0 && control&msixEnable != 0 {
		m.drain() // what came while MSI-X was off is nobody's
	}
	m.setControl(control)
	for i := range m.vectors {
		m.apply(&m.vectors[i])
	}
	return before
}

// apply makes KVM agree with the vector: attached while it can be delivered.
// While it is not attached, the count of its eventfd is its pending bit.
func (m *MSIX) apply(v *vector) {
	if m.host == nil {
		return
	}
	on := m.control&msixEnable != 0 && m.control&msixFuncMask == 0 && v.mask&msixVectorMask == 0
	if !on {
		if v.attached && m.host.DetachIRQ(v.gsi, v.fd) == nil {
			v.attached = false
		}
		return
	}
	msg := Message{v.addr, v.data}
	if !v.routed || v.route != msg {
		// A route that KVM refuses (a guest's nonsense) delivers nothing.
		if m.host.RouteMSI(v.gsi, msg) != nil {
			return
		}
		v.routed, v.route = true, msg
	}
	if !v.attached {
		v.attached = m.host.AttachIRQ(v.gsi, v.fd) == nil
	}
}

// reset brings back the state after power-on; no vCPU runs.
func (m *MSIX) reset() { m.tell(m.clearState()) }

func (m *MSIX) clearState() (before uint16) {
	m.mu.Lock()
	defer m.mu.Unlock()
	before = m.control
	m.setControl(0)
	for i := range m.vectors {
		v := &m.vectors[i]
		v.addr, v.data, v.mask = 0, 0, msixVectorMask
		m.apply(v)
	}
	m.drain()
	return before
}

func (m *MSIX) drain() {
	var count [8]byte
	for i := range m.vectors {
		_, _ = unix.Read(m.vectors[i].fd, count[:])
	}
}

func (m *MSIX) bind(h Host) error {
	if err := bindVectors(m.vectors, h); err != nil {
		return err
	}
	m.host = h
	return nil
}

func (m *MSIX) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.setControl(0)
	closeVectors(m.vectors)
}

// newVectors makes the eventfds of the vectors of the device called name.
func newVectors(name string, count int) ([]vector, error) {
	vectors := make([]vector, count)
	for i := range vectors {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			closeVectors(vectors[:i])
			return nil, qverr.New(qverr.CodeOf(err), "%s: eventfd of vector %d: %w", name, i, err)
		}
		vectors[i].fd = fd
	}
	return vectors, nil
}

// bindVectors gets each vector its number at the host's interrupt controller.
func bindVectors(vectors []vector, h Host) (err error) {
	for i := range vectors {
		if vectors[i].gsi, err = h.AllocGSI(); err != nil {
			return err
		}
	}
	return nil
}

func closeVectors(vectors []vector) {
	for i := range vectors {
		if vectors[i].fd >= 0 {
			unix.Close(vectors[i].fd)
			vectors[i].fd = -1
		}
	}
}

func (v *vector) pending() bool {
	if v.attached {
		return false
	}
	p := []unix.PollFd{{Fd: int32(v.fd), Events: unix.POLLIN}}
	for {
		n, err := unix.Poll(p, 0)
		if !errors.Is(err, unix.EINTR) {
			return err == nil && n == 1
		}
	}
}
