package iso

import (
	"cmp"
	"encoding/binary"
	"fmt"
	"slices"
	"strings"
)

// directory of the disc.
type directory struct {
	name    string // identifier
	shown   string // Rock Ridge name
	parent  *directory
	entries []*entry
	sector  uint32
	size    uint32 // bytes
	number  int    // in the path table, from 1
}

// entry is a file or a directory.
type entry struct {
	name  string
	shown string
	dir   *directory
	file  File
}

// tree makes the directories.
func (d Disc) tree() (*directory, error) {
	root := &directory{name: "\x00"}
	root.parent = root
	for _, f := range d.Files {
		if _, err := root.file(f); err != nil {
			return nil, err
		}
	}
	return root, nil
}

// file adds a file by its path.
func (d *directory) file(f File) (e *entry, err error) {
	parts := strings.Split(f.Name, "/")
	for i, part := range parts {
		if e, err = d.add(part, i == len(parts)-1); err != nil {
			return nil, fmt.Errorf("%s: %w", f.Name, err)
		}
		d = e.dir
	}
	e.file = f
	return e, nil
}

// order sorts entries by identifier (9.3) and numbers the directories.
func (d *directory) order() {
	for _, dir := range d.flat() {
		slices.SortFunc(dir.entries, func(a, b *entry) int { return cmp.Compare(a.name, b.name) })
	}
	for i, dir := range d.flat() {
		dir.number = i + 1
	}
}

// maxShown keeps the record of an entry within its 255 bytes.
const maxShown = 120

// add finds or makes an entry.
func (d *directory) add(shown string, file bool) (*entry, error) {
	if shown == "" || shown == "." || shown == ".." || len(shown) > maxShown {
		return nil, fmt.Errorf("%q is no name", shown)
	}
	for _, e := range d.entries {
		if e.shown == shown {
			if file || e.dir == nil {
				return nil, fmt.Errorf("%q is there twice", shown)
			}
			return e, nil
		}
	}
	e := &entry{shown: shown, name: d.unique(shown, file)}
	if !file {
		e.dir = &directory{name: e.name, shown: shown, parent: d}
	}
	d.entries = append(d.entries, e)
	return e, nil
}

// unique makes the identifier of an entry: level 1 (10.1), 8 characters and 3
// after a dot, with a number at the end where another has the same.
func (d *directory) unique(shown string, file bool) string {
	base, extension := shown, ""
	if i := strings.LastIndexByte(shown, '.'); i > 0 && file {
		base, extension = shown[:i], shown[i+1:]
	}
	base, extension = identifier(base), identifier(extension)
	extension = extension[:min(3, len(extension))]
	for n := 0; ; n++ {
		tail := ""
		if n > 0 {
			tail = fmt.Sprint(n)
		}
		name := base[:min(len(base), 8-len(tail))] + tail
		if file {
			name += "." + extension + ";1"
		}
		if !slices.ContainsFunc(d.entries, func(e *entry) bool { return e.name == name }) {
			return name
		}
	}
}

// identifier replaces what is no d-character (7.4.1).
func identifier(s string) string {
	return strings.Map(func(c rune) rune {
		if c >= 'A' && c <= 'Z' || c >= '0' && c <= '9' {
			return c
		}
		return '_'
	}, strings.ToUpper(s))
}

// flat lists the directories in the order of the path table (6.9.1): by depth,
// then by the number of the parent, then by identifier.
func (d *directory) flat() []*directory {
	all := []*directory{d}
	for i := 0; i < len(all); i++ {
		for _, e := range all[i].entries {
			if e.dir != nil {
				all = append(all, e.dir)
			}
		}
	}
	return all
}

// paths are the path tables, little-endian and big-endian (9.4).
func paths(all []*directory) (little, big []byte) {
	for _, dir := range all {
		head := make([]byte, 8)
		head[0] = byte(len(dir.name))
		tail := dir.name + "\x00"[:len(dir.name)&1]
		binary.LittleEndian.PutUint32(head[2:], dir.sector)
		binary.LittleEndian.PutUint16(head[6:], uint16(dir.parent.number))
		little = append(append(little, head...), tail...)
		binary.BigEndian.PutUint32(head[2:], dir.sector)
		binary.BigEndian.PutUint16(head[6:], uint16(dir.parent.number))
		big = append(append(big, head...), tail...)
	}
	return little, big
}

// directory are the records of a directory (6.8). Their length does not depend
// on sectors and sizes, so that a first run finds it. No record crosses a
// sector.
func (d Disc) directory(dir *directory) []byte {
	var b []byte
	add := func(record []byte) {
		if used := len(b) % SectorSize; used+len(record) > SectorSize {
			b = append(b, make([]byte, SectorSize-used)...)
		}
		b = append(b, record...)
	}
	own := attributes(true)
	if dir.parent == dir {
		own = slices.Concat(sharing, own, extension)
	}
	add(d.record("\x00", dir.sector, dir.size, true, own))
	add(d.record("\x01", dir.parent.sector, dir.parent.size, true, attributes(true)))
	for _, e := range dir.entries {
		extra := append(attributes(e.dir != nil), nameEntry(e.shown)...)
		if e.dir != nil {
			add(d.record(e.name, e.dir.sector, e.dir.size, true, extra))
		} else {
			add(d.record(e.name, uint32(e.file.Offset/SectorSize), uint32(e.file.Size), false, extra))
		}
	}
	return append(b, make([]byte, -len(b)&(SectorSize-1))...)
}

// record of a directory (9.1), with entries of the system use field behind.
func (d Disc) record(name string, sector, size uint32, isDir bool, extra []byte) []byte {
	b := make([]byte, 33, 33+len(name)+1+len(extra)+1)
	both32(b[2:], sector)
	both32(b[10:], size)
	t := d.Time.UTC()
	copy(b[18:], []byte{byte(t.Year() - 1900), byte(t.Month()), byte(t.Day()), byte(t.Hour()), byte(t.Minute()), byte(t.Second()), 0})
	if isDir {
		b[25] = 2
	}
	both16(b[28:], 1)
	b[32] = byte(len(name))
	b = append(b, name...)
	b = append(b, make([]byte, len(b)&1)...)
	b = append(b, extra...)
	b = append(b, make([]byte, len(b)&1)...)
	b[0] = byte(len(b))
	return b
}

// Entries of the system use field (SUSP 1.12; RRIP 1.12, of whose PX the older
// form is written): the mark of their use, and which extension it is.
var (
	sharing   = []byte("SP\x07\x01\xbe\xef\x00")
	extension = []byte("ER\x12\x01\x0a\x00\x00\x01RRIP_1991A")
)

// attributes is a PX entry: root's, readable for all.
func attributes(isDir bool) []byte {
	mode := uint32(0o100444)
	if isDir {
		mode = 0o040755
	}
	b := append([]byte("PX\x24\x01"), make([]byte, 32)...)
	both32(b[4:], mode)
	both32(b[12:], 1)
	return b
}

// nameEntry is an NM entry.
func nameEntry(name string) []byte {
	return append([]byte{'N', 'M', byte(5 + len(name)), 1, 0}, name...)
}
