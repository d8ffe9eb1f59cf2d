package acpi

import "encoding/binary"

// Files of fw_cfg by which firmware gets the tables. Those of the tables
// themselves are named by the script.
const (
	FileLoader = "etc/table-loader"
	FileRSDP   = "etc/acpi/rsdp"
	FileTables = "etc/acpi/tables"
)

// Commands of the script (QEMU's hw/acpi/bios-linker-loader.c).
const (
	loaderAllocate    = 1
	loaderAddPointer  = 2
	loaderAddChecksum = 3
	loaderEntrySize   = 128
	loaderNameSize    = 56

	zoneHigh     = 1
	zoneFSegment = 2

	tableAlign = 64
	rsdpAlign  = 16
)

// Script is the tables for firmware that places them itself: files, of which one
// says what is to be done with the others.
type Script struct {
	Loader, RSDP, Tables []byte
}

// ForFirmware makes from the tables of Build a script for firmware: pointers are
// offsets in the tables' file, checksums that they enter into are open.
func ForFirmware(c Config) (Script, error) {
	blob, err := Build(c, 0)
	if err != nil {
		return Script{}, err
	}
	s := Script{RSDP: append([]byte(nil), blob[:rsdpSize]...), Tables: blob}
	s.allocate(FileRSDP, rsdpAlign, zoneFSegment)
	s.allocate(FileTables, tableAlign, zoneHigh)
	for _, t := range patched(blob) {
		for _, p := range t.pointers {
			s.pointer(FileTables, t.at+p.off, p.size)
		}
		s.checksum(FileTables, blob, t.at+9, t.at, t.length)
	}
	s.pointer(FileRSDP, 24, 8)
	s.checksum(FileRSDP, s.RSDP, 8, 0, 20)
	s.checksum(FileRSDP, s.RSDP, 32, 0, rsdpSize)
	clear(blob[:rsdpSize]) // the file of its own counts
	return s, nil
}

type pointer struct{ off, size int }

// patchedTable is a table with pointers to others.
type patchedTable struct {
	at, length int
	pointers   []pointer
}

// patched finds the pointers in tables that Build made for address 0: those of the
// XSDT, and those of the FADT to FACS and DSDT.
func patched(blob []byte) []patchedTable {
	le := binary.LittleEndian
	length := func(at int) int { return int(le.Uint32(blob[at+4:])) }
	at := int(le.Uint64(blob[24:]))
	xsdt := patchedTable{at: at, length: length(at)}
	list := []patchedTable{}
	for off := headerSize; off < xsdt.length; off += 8 {
		xsdt.pointers = append(xsdt.pointers, pointer{off, 8})
		t := int(le.Uint64(blob[at+off:]))
		if string(blob[t:t+4]) != "FACP" {
			continue
		}
		fadt := patchedTable{at: t, length: length(t)}
		for _, p := range []pointer{{36, 4}, {40, 4}, {132, 8}, {140, 8}} {
			if le.Uint32(blob[t+p.off:]) != 0 {
				fadt.pointers = append(fadt.pointers, p)
			}
		}
		list = append(list, fadt)
	}
	return append(list, xsdt)
}

func (s *Script) allocate(file string, align uint32, zone byte) {
	e := s.add(loaderAllocate)
	copy(e[4:4+loaderNameSize], file)
	binary.LittleEndian.PutUint32(e[60:], align)
	e[64] = zone
}

// pointer adds the address of the tables' file to what is at off.
func (s *Script) pointer(file string, off, size int) {
	e := s.add(loaderAddPointer)
	copy(e[4:4+loaderNameSize], file)
	copy(e[60:60+loaderNameSize], FileTables)
	binary.LittleEndian.PutUint32(e[116:], uint32(off))
	e[120] = byte(size)
}

// checksum makes the bytes from start on add up to zero by the one at off.
func (s *Script) checksum(file string, data []byte, off, start, length int) {
	data[off] = 0
	e := s.add(loaderAddChecksum)
	copy(e[4:4+loaderNameSize], file)
	for i, v := range []int{off, start, length} {
		binary.LittleEndian.PutUint32(e[60+4*i:], uint32(v))
	}
}

func (s *Script) add(command uint32) []byte {
	at := len(s.Loader)
	s.Loader = append(s.Loader, make([]byte, loaderEntrySize)...)
	binary.LittleEndian.PutUint32(s.Loader[at:], command)
	return s.Loader[at:]
}
