package fat32

import (
	"fmt"
	"path"
	"strings"

	"quantavirt/internal/qverr"
)

// directory is one of a new volume.
type directory struct {
	parent  *directory // nil for the root
	first   uint32     // cluster
	entries []*entry   // in the order of the files
}

// entry is a file or a directory within a directory.
type entry struct {
	name  string
	short [11]byte // name and extension, padded with blanks
	long  bool     // needs a long name beside the short one
	dir   *directory
	first uint32 // cluster of a file, 0 for an empty one
	size  uint32
}

// tree makes the directories of the files. Names are compared without case, as
// every reader of FAT does.
func tree(files []File) (*directory, error) {
	root := &directory{}
	for _, f := range files {
		parts := strings.Split(f.Name, "/")
		d := root
		for i, part := range parts {
			if err := checkName(part); err != nil {
				return nil, fmt.Errorf("%q: %w", f.Name, err)
			}
			e := d.child(part)
			last := i == len(parts)-1
			if e != nil && (last || e.dir == nil || e.name != part) {
				return nil, qverr.New(qverr.Inval, "%q is there twice", path.Join(parts[:i+1]...))
			}
			if e == nil {
				e = d.add(part)
				if !last {
					e.dir = &directory{parent: d}
				}
			}
			d = e.dir
		}
	}
	return root, nil
}

// child finds an entry by its name, nil if there is none.
func (d *directory) child(name string) *entry {
	for _, e := range d.entries {
		if strings.EqualFold(e.name, name) {
			return e
		}
	}
	return nil
}

// find goes down a path that exists; "" is the directory itself.
func (d *directory) find(name string) *directory {
	if name == "" {
		return d
	}
	for part := range strings.SplitSeq(name, "/") {
		d = d.child(part).dir
	}
	return d
}

// walk calls do for the directory and all below it.
func (d *directory) walk(do func(*directory) error) error {
	if err := do(d); err != nil {
		return err
	}
	for _, e := range d.entries {
		if e.dir == nil {
			continue
		}
		if err := e.dir.walk(do); err != nil {
			return err
		}
	}
	return nil
}

// add makes an entry with a short name that no other of the directory has.
func (d *directory) add(name string) *entry {
	e := &entry{name: name}
	base, extension := name, ""
	if i := strings.LastIndexByte(name, '.'); i > 0 {
		base, extension = name[:i], name[i+1:]
	}
	e.short = pack(base, extension)
	if plain(base, 8) && (extension == "" && !strings.Contains(name, ".") || plain(extension, 3)) && !d.has(e.short) {
		d.entries = append(d.entries, e)
		return e
	}
	// "Generating 8.3 names from long names": ~N ends the base.
	e.long = true
	base, extension = reduce(base), reduce(extension)
	for n := 1; ; n++ {
		tail := fmt.Sprintf("~%d", n)
		e.short = pack(base[:min(len(base), 8-len(tail))]+tail, extension)
		if !d.has(e.short) {
			break
		}
	}
	d.entries = append(d.entries, e)
	return e
}

func (d *directory) has(short [11]byte) bool {
	for _, e := range d.entries {
		if e.short == short {
			return true
		}
	}
	return false
}

// shortMarks may stand in a short name beside letters and digits.
const shortMarks = "$%'-_@~`!(){}^#&"

// plain tells whether a part of a name can stand in a short name as it is.
func plain(part string, limit int) bool {
	return part != "" && len(part) <= limit && part == reduce(part)
}

// reduce makes a part of a name fit for a short name, except for its length.
func reduce(part string) string {
	var b strings.Builder
	for _, c := range strings.ToUpper(part) {
		switch {
		case c >= 'A' && c <= 'Z', c >= '0' && c <= '9', strings.ContainsRune(shortMarks, c):
			b.WriteRune(c)
		case c != ' ' && c != '.':
			b.WriteByte('_')
		}
	}
	return b.String()
}

func pack(base, extension string) (short [11]byte) {
	copy(short[:], "           ")
	copy(short[:8], base)
	copy(short[8:], extension)
	return short
}

func checkName(name string) error {
	if name == "" || len(name) > 255 || strings.HasSuffix(name, ".") || strings.HasSuffix(name, " ") {
		return qverr.New(qverr.Inval, "%q is no name", name)
	}
	for _, c := range name {
		if c < ' ' || c > '~' || strings.ContainsRune(`"*/:<>?\|`, c) {
			return qverr.New(qverr.Inval, "%q is not allowed in a name", c)
		}
	}
	return nil
}

func checkLabel(label string) error {
	if label == "" || len(label) > 11 {
		return qverr.New(qverr.Inval, "label %q: want 1 to 11 characters", label)
	}
	for _, c := range label {
		if (c < 'A' || c > 'Z') && (c < '0' || c > '9') && !strings.ContainsRune(" -_", c) {
			return qverr.New(qverr.Inval, "label %q: %q is not allowed", label, c)
		}
	}
	return nil
}
