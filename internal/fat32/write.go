package fat32

import (
	"encoding/binary"
	"fmt"
	"io"
	"time"
	"unicode/utf16"
)

// write puts everything on the target, the boot sector last: until then it is
// no file system.
func (f *format) write(w io.WriterAt) error {
	if _, err := w.WriteAt(make([]byte, f.sector), 0); err != nil { // what was there before is none either
		return err
	}
	if err := f.writeFiles(w); err != nil {
		return err
	}
	err := f.root.walk(func(d *directory) error {
		data := f.records(d)
		data = append(data, make([]byte, -int64(len(data))&(f.cluster-1))...)
		_, err := w.WriteAt(data, f.offset(d.first))
		return err
	})
	if err != nil {
		return err
	}
	if err := f.writeTables(w); err != nil {
		return err
	}
	blank := make([]byte, reserved*f.sector)
	copy(blank[fsInfo*f.sector:], f.info())
	copy(blank[(backup+fsInfo)*f.sector:], f.info())
	copy(blank[backup*f.sector:], f.bootSector())
	if _, err := w.WriteAt(blank[f.sector:], f.sector); err != nil {
		return err
	}
	copy(blank, f.bootSector())
	_, err = w.WriteAt(blank[:f.sector], 0)
	return err
}

// writeFiles copies the files, and clears what remains of their last cluster.
func (f *format) writeFiles(w io.WriterAt) error {
	for i, file := range f.Files {
		x := f.extents[i]
		if x.Size == 0 {
			continue
		}
		if err := file.CopyTo(io.NewOffsetWriter(w, x.Offset)); err != nil {
			return err
		}
		if rest := -x.Size & (f.cluster - 1); rest > 0 {
			if _, err := w.WriteAt(make([]byte, rest), x.Offset+x.Size); err != nil {
				return err
			}
		}
	}
	return nil
}

func (f *format) writeTables(w io.WriterAt) error {
	table := make([]byte, f.fat*f.sector)
	for i, v := range f.table {
		binary.LittleEndian.PutUint32(table[4*i:], v)
	}
	for i := range int64(copies) {
		if _, err := w.WriteAt(table, (reserved+i*f.fat)*f.sector); err != nil {
			return err
		}
	}
	return nil
}

// bootSector is the BIOS parameter block for FAT32 (specification, "Boot Sector
// and BPB"). It holds no boot code: BIOS machines boot through the disk's.
func (f *format) bootSector() []byte {
	b := make([]byte, f.sector)
	le := binary.LittleEndian
	copy(b, "\xeb\x58\x90MSWIN4.1") // the name that all readers accept
	le.PutUint16(b[11:], uint16(f.sector))
	b[13] = byte(f.cluster / f.sector)
	le.PutUint16(b[14:], reserved)
	b[16] = copies
	b[21] = 0xf8 // fixed disk
	le.PutUint16(b[24:], 63)
	le.PutUint16(b[26:], 255)
	le.PutUint32(b[28:], f.Hidden)
	le.PutUint32(b[32:], uint32(f.sectors))
	le.PutUint32(b[36:], uint32(f.fat))
	le.PutUint32(b[44:], rootCluster)
	le.PutUint16(b[48:], fsInfo)
	le.PutUint16(b[50:], backup)
	b[64] = 0x80 // BIOS drive
	b[66] = 0x29 // serial, label and type follow
	le.PutUint32(b[67:], f.Serial)
	copy(b[71:], fmt.Sprintf("%-11s", f.Label))
	copy(b[82:], "FAT32   ")
	copy(b[90:], "\xf4\xeb\xfd") // hlt; jmp back
	b[510], b[511] = 0x55, 0xaa
	return b
}

// info is the FSInfo sector.
func (f *format) info() []byte {
	b := make([]byte, f.sector)
	le := binary.LittleEndian
	copy(b, "RRaA")
	copy(b[484:], "rrAa")
	le.PutUint32(b[488:], uint32(f.clusters)-f.used)
	le.PutUint32(b[492:], f.next-1) // the last one allocated
	b[510], b[511] = 0x55, 0xaa
	return b
}

// Directory records: specification, "FAT Directory Structure" and "FAT Long
// Directory Entries".
const (
	recordSize  = 32
	attrLabel   = 0x08
	attrDir     = 0x10
	attrArchive = 0x20
	attrLong    = 0x0f
	longUnits   = 13 // UTF-16 units of a long name in one record
)

// records counts the records of a directory, the end mark included.
func (d *directory) records() int {
	n := 1 + 1 // the root's label and the end mark
	if d.parent != nil {
		n++ // . and ..
	}
	for _, e := range d.entries {
		n++
		if e.long {
			n += (len(e.name) + longUnits - 1) / longUnits
		}
	}
	return n
}

// records are the bytes of a directory.
func (f *format) records(d *directory) []byte {
	var b []byte
	if d.parent == nil {
		b = append(b, f.record(pack(fmt.Sprintf("%-8.8s", f.Label), f.Label[min(8, len(f.Label)):]), attrLabel, 0, 0)...)
	} else {
		up := d.parent.first
		if d.parent.parent == nil {
			up = 0 // the root is called that here
		}
		b = append(b, f.record(pack(".", ""), attrDir, d.first, 0)...)
		b = append(b, f.record(pack("..", ""), attrDir, up, 0)...)
	}
	for _, e := range d.entries {
		if e.long {
			b = append(b, longRecords(e)...)
		}
		if e.dir != nil {
			b = append(b, f.record(e.short, attrDir, e.dir.first, 0)...)
		} else {
			b = append(b, f.record(e.short, attrArchive, e.first, e.size)...)
		}
	}
	return append(b, make([]byte, recordSize)...)
}

func (f *format) record(short [11]byte, attr byte, first, size uint32) []byte {
	b := make([]byte, recordSize)
	le := binary.LittleEndian
	copy(b, short[:])
	b[11] = attr
	date, clock := stamp(f.Time)
	le.PutUint16(b[14:], clock) // creation
	le.PutUint16(b[16:], date)
	le.PutUint16(b[18:], date)  // access
	le.PutUint16(b[22:], clock) // writing
	le.PutUint16(b[24:], date)
	le.PutUint16(b[20:], uint16(first>>16))
	le.PutUint16(b[26:], uint16(first))
	le.PutUint32(b[28:], size)
	return b
}

// longRecords stand before the short one, the end of the name first.
func longRecords(e *entry) []byte {
	var sum byte
	for _, c := range e.short {
		sum = sum>>1 | sum<<7
		sum += c
	}
	units := utf16.Encode([]rune(e.name))
	count := (len(units) + longUnits - 1) / longUnits
	padded := make([]uint16, count*longUnits)
	for i := range padded {
		padded[i] = 0xffff
	}
	if n := copy(padded, units); n < len(padded) {
		padded[n] = 0
	}
	var b []byte
	for i := count; i >= 1; i-- {
		r := make([]byte, recordSize)
		r[0] = byte(i)
		if i == count {
			r[0] |= 0x40
		}
		r[11], r[13] = attrLong, sum
		for j, at := range []int{1, 3, 5, 7, 9, 14, 16, 18, 20, 22, 24, 28, 30} {
			binary.LittleEndian.PutUint16(r[at:], padded[(i-1)*longUnits+j])
		}
		b = append(b, r...)
	}
	return b
}

// stamp is a time as FAT has it, in UTC.
func stamp(t time.Time) (date, clock uint16) {
	t = t.UTC()
	date = uint16((t.Year()-1980)<<9 | int(t.Month())<<5 | t.Day())
	clock = uint16(t.Hour()<<11 | t.Minute()<<5 | t.Second()/2)
	return date, clock
}
