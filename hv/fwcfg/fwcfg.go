package fwcfg

import (
	"encoding/binary"
	"slices"
	"sync"

	"quantavirt/hv/memory"
	"quantavirt/internal/qverr"
)

// Ports of the device.
const (
	Port  = 0x510
	Ports = 12

	regSelector = 0 // 16 bits, write
	regData     = 1 // 8 bits, read
	regDMAHigh  = 4 // 32 bits big-endian each; the low half starts the transfer
	regDMALow   = 8
)

// Keys of the items with a meaning of their own.
const (
	KeySignature = 0x00
	KeyID        = 0x01
	KeyNoGraphic = 0x04 // 16 bits: the console is serial
	KeyCPUs      = 0x05 // 16 bits: vCPUs that run
	KeyMaxCPUs   = 0x0f // 16 bits: vCPUs that may ever run
	keyDirectory = 0x19
	keyFiles     = 0x20 // of the first file
)

const (
	idTraditional = 1 << 0
	idDMA         = 1 << 1

	dmaError  = 1 << 0
	dmaRead   = 1 << 1
	dmaSkip   = 1 << 2
	dmaSelect = 1 << 3
	dmaWrite  = 1 << 4

	dmaDescriptor = 16

	maxFiles = 256
	nameSize = 56 // with the zero at its end
	entry    = 64 // of the directory

	// MaxTransfer is the most that one DMA transfer moves, in bytes: far more than
	// any item has.
	MaxTransfer = 4 << 20
)

// dmaSignature is what the DMA register reads as, "QEMU CFG".
var dmaSignature = [8]byte{'Q', 'E', 'M', 'U', ' ', 'C', 'F', 'G'}

type file struct {
	name string
	data []byte
}

// Device is one fw_cfg device. Items and files are set before the guest runs.
type Device struct {
	mem *memory.Memory

	mu    sync.Mutex // guards all below
	items map[uint16][]byte
	files []file
	key   uint16
	off   int
	dma   [8]byte // the DMA address register, as written
}

// New makes a device with DMA to mem.
func New(mem *memory.Memory) *Device {
	d := &Device{mem: mem, items: map[uint16][]byte{}}
	d.items[KeySignature] = []byte("QEMU")
	d.items[KeyID] = binary.LittleEndian.AppendUint32(nil, idTraditional|idDMA)
	d.index()
	return d
}

// Set gives the item key a content, which is not copied.
func (d *Device) Set(key uint16, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.items[key] = data
}

// SetUint16 gives an item of 16 bits.
func (d *Device) SetUint16(key, v uint16) { d.Set(key, binary.LittleEndian.AppendUint16(nil, v)) }

// AddFile adds a named file, or replaces the one of that name; the data is not
// copied. It fails with QV_ERR_INVAL for a name without room and with
// QV_ERR_LIMIT for too many files.
func (d *Device) AddFile(name string, data []byte) error {
	if name == "" || len(name) >= nameSize {
		return qverr.New(qverr.Inval, "fw_cfg file %q: a name has 1 to %d bytes", name, nameSize-1)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	i := slices.IndexFunc(d.files, func(f file) bool { return f.name == name })
	switch {
	case i >= 0:
		d.files[i].data = data
	case len(d.files) == maxFiles:
		return qverr.New(qverr.Limit, "fw_cfg file %q: there are %d files already", name, maxFiles)
	default:
		d.files = append(d.files, file{name, data})
	}
	d.index()
	return nil
}

// index makes the directory and the items of the files; d.mu is held or d new.
func (d *Device) index() {
	dir := binary.BigEndian.AppendUint32(nil, uint32(len(d.files)))
	for i, f := range d.files {
		key := keyFiles + uint16(i)
		var e [entry]byte
		binary.BigEndian.PutUint32(e[:], uint32(len(f.data)))
		binary.BigEndian.PutUint16(e[4:], key)
		copy(e[8:], f.name)
		dir = append(dir, e[:]...)
		d.items[key] = f.data
	}
	d.items[keyDirectory] = dir
}

// Reset is the reset of the machine: nothing is selected. The items stay.
func (d *Device) Reset() {
	d.mu.Lock()
	defer d.mu.Unlock()
	d.key, d.off, d.dma = 0, 0, [8]byte{}
}

// ReadPort serves a read at off, counted from Port.
func (d *Device) ReadPort(off uint16, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i := range data {
		data[i] = 0xff
		switch at := off + uint16(i); {
		case at == regData:
			data[i] = d.next()
		case at >= regDMAHigh && at < Ports:
			data[i] = dmaSignature[at-regDMAHigh]
		}
	}
}

// next reads the selected item byte by byte; after its end, and where there is no
// item, zeroes follow.
func (d *Device) next() byte {
	item := d.items[d.key]
	if d.off >= len(item) {
		return 0
	}
	d.off++
	return item[d.off-1]
}

// WritePort serves a write at off, counted from Port.
func (d *Device) WritePort(off uint16, data []byte) {
	d.mu.Lock()
	defer d.mu.Unlock()
	switch {
	case off == regSelector && len(data) == 2:
		d.key, d.off = binary.LittleEndian.Uint16(data), 0
	case off >= regDMAHigh && int(off)+len(data) <= Ports:
		copy(d.dma[off-regDMAHigh:], data)
		if off == regDMALow && len(data) == 4 {
			d.transfer(binary.BigEndian.Uint64(d.dma[:]))
			d.dma = [8]byte{}
		}
	}
}

// transfer carries out the descriptor at addr and says in it how that went. One
// outside of the guest's RAM cannot be answered at all.
func (d *Device) transfer(addr uint64) {
	var desc [dmaDescriptor]byte
	if d.mem.ReadAt(desc[:], addr) != nil {
		return
	}
	control := binary.BigEndian.Uint32(desc[:])
	length, target := binary.BigEndian.Uint32(desc[4:]), binary.BigEndian.Uint64(desc[8:])
	if control&dmaSelect != 0 {
		d.key, d.off = uint16(control>>16), 0
	}
	result := uint32(0)
	switch {
	case control&dmaRead != 0:
		if !d.copyTo(target, length) {
			result = dmaError
		}
	case control&dmaWrite != 0:
		result = dmaError // nothing here can be written
	case control&dmaSkip != 0:
		d.off = min(d.off+int(length), len(d.items[d.key]))
	}
	// The descriptor was in RAM before, and RAM does not go away.
	_ = d.mem.WriteAt(binary.BigEndian.AppendUint32(nil, result), addr)
}

func (d *Device) copyTo(addr uint64, length uint32) bool {
	if length == 0 {
		return true
	}
	if length > MaxTransfer {
		return false
	}
	dst, err := d.mem.Slice(addr, uint64(length))
	if err != nil {
		return false
	}
	item := d.items[d.key]
	n := copy(dst, item[min(d.off, len(item)):])
	clear(dst[n:])
	d.off += n
	return true
}
