package pci

import (
	"encoding/binary"
	"math/bits"
	"sync"

	"quantavirt/internal/qverr"
)

const (
	msiMaxVectors = 32
	msiEnable     = 1
	msiMultiple   = 0x70 // log2 of the vectors that the guest allows
	msi64         = 1 << 7

	msiControlOff = 2 // within the capability
	msiAddressOff = 4
)

// MSI is the message-signalled interrupt of a device that has no table for it (PCI
// 3.0, 6.8.1). The guest cannot mask a vector by itself.
type MSI struct {
	dev    *Device
	host   Host
	capOff int
	is64   bool

	onEnable func(vectors int)

	mu      sync.Mutex
	vectors []vector
	enabled int // vectors in use, 0 while it is off
}

// AddMSI gives the device count interrupt vectors, a power of two up to 32. is64
// makes room for addresses above 4 GiB.
func (d *Device) AddMSI(count int, is64 bool) (*MSI, error) {
	if count < 1 || count > msiMaxVectors || bits.OnesCount(uint(count)) != 1 || d.msi != nil {
		return nil, qverr.New(qverr.Inval, "%s: MSI with %d vectors", d.name, count)
	}
	vectors, err := newVectors(d.name, count)
	if err != nil {
		return nil, err
	}
	m := &MSI{dev: d, is64: is64, vectors: vectors}
	size := 8 // control, address, data
	if is64 {
		size += 4
	}
	body, mask := make([]byte, size), make([]byte, size)
	control := uint16(bits.TrailingZeros(uint(count))) << 1
	if is64 {
		control |= msi64
	}
	binary.LittleEndian.PutUint16(body, control)
	mask[0] = msiEnable | msiMultiple
	for i := 2; i < size; i++ {
		mask[i] = 0xff
	}
	mask[2] = 0xfc
	off, err := d.AddCapability(CapMSI, body, mask, m)
	if err != nil {
		m.close()
		return nil, err
	}
	m.capOff, d.msi = off, m
	return m, nil
}

// Vectors is the number of interrupt vectors that there are.
func (m *MSI) Vectors() int { return len(m.vectors) }

// EventFD is the eventfd whose signal raises vector, -1 when it does not exist. It
// stays owned by m.
func (m *MSI) EventFD(v int) int {
	if v < 0 || v >= len(m.vectors) {
		return -1
	}
	return m.vectors[v].fd
}

// OnEnable calls f with the number of vectors in use when that changes, 0 for none.
// It must not access configuration space through the Bus.
func (m *MSI) OnEnable(f func(vectors int)) { m.onEnable = f }

// ReadConfig leaves the stored bytes as they are.
func (m *MSI) ReadConfig(int, []byte) {}

// WriteConfig follows control, address and data.
func (m *MSI) WriteConfig(int, []byte) {
	c := m.dev.config[m.capOff:]
	control := binary.LittleEndian.Uint16(c[msiControlOff:])
	msg := Message{Addr: uint64(binary.LittleEndian.Uint32(c[msiAddressOff:]))}
	data := msiAddressOff + 4
	if m.is64 {
		msg.Addr |= uint64(binary.LittleEndian.Uint32(c[data:])) << 32
		data += 4
	}
	msg.Data = uint32(binary.LittleEndian.Uint16(c[data:]))
	n := 0
	if control&msiEnable != 0 {
		n = min(1<<(control&msiMultiple>>4), len(m.vectors))
	}
	m.use(n, msg)
}

// use makes KVM deliver n vectors as msg and those after it.
func (m *MSI) use(n int, msg Message) {
	m.mu.Lock()
	before := m.enabled
	m.enabled = n
	for i := range m.vectors {
		v := &m.vectors[i]
		if i >= n {
			if v.attached && m.host.DetachIRQ(v.gsi, v.fd) == nil {
				v.attached = false
			}
			continue
		}
		// The device changes the low bits of the message for its vectors.
		one := Message{msg.Addr, msg.Data&^uint32(n-1) | uint32(i)}
		if !v.routed || v.route != one {
			if m.host.RouteMSI(v.gsi, one) != nil {
				continue // a guest's nonsense delivers nothing
			}
			v.routed, v.route = true, one
		}
		if !v.attached {
			v.attached = m.host.AttachIRQ(v.gsi, v.fd) == nil
		}
	}
	m.mu.Unlock()
	if m.onEnable != nil && before != n {
		m.onEnable(n)
	}
}

func (m *MSI) reset() { m.use(0, Message{}) }

func (m *MSI) bind(h Host) error {
	if err := bindVectors(m.vectors, h); err != nil {
		return err
	}
	m.host = h
	return nil
}

func (m *MSI) close() {
	m.mu.Lock()
	defer m.mu.Unlock()
	closeVectors(m.vectors)
}
