package writelog

import (
	"bytes"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"slices"
	"testing"
)

const (
	sector = 512
	disk   = 64 * sector
)

// record is an entry to be written.
type record struct {
	first, count, flags uint64
	text                string // of a mark
	fill                byte   // of what is written
}

func encode(records ...record) []byte {
	var b bytes.Buffer
	pad := func() { b.Write(make([]byte, (sector-b.Len()%sector)%sector)) }
	put := func(v uint64) { _ = binary.Write(&b, binary.LittleEndian, v) }
	put(magic)
	put(version)
	put(0)
	_ = binary.Write(&b, binary.LittleEndian, uint32(sector))
	pad()
	for _, r := range records {
		for _, v := range []uint64{r.first, r.count, r.flags, uint64(len(r.text))} {
			put(v)
		}
		pad()
		b.WriteString(r.text)
		pad()
		if r.flags&(mark|Discard) == 0 {
			b.Write(bytes.Repeat([]byte{r.fill}, int(r.count)*sector))
		}
	}
	return b.Bytes()
}

var some = []record{
	{first: 0, count: 2, fill: 'a'},
	{flags: Flush},
	{flags: mark, text: "here"},
	{first: 1, count: 2, fill: 'b', flags: FUA},
	{first: 0, count: 1, flags: Discard},
	{first: 63, count: 1, fill: 'c'},
}

func TestApply(t *testing.T) {
	log := encode(some...)
	l, err := Read(bytes.NewReader(log), int64(len(log)), disk)
	if err != nil || len(l.Entries) != 5 {
		t.Fatalf("%d entries, %v", len(l.Entries), err)
	}
	part := func(s string) []byte { // one byte a sector
		var b []byte
		for _, c := range []byte(s) {
			b = append(b, bytes.Repeat([]byte{c}, sector)...)
		}
		return b
	}
	for n, want := range []string{"xxx", "aax", "aax", "abb", "\x00bb", "\x00bb"} {
		f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
		if err != nil {
			t.Fatal(err)
		}
		if _, err := f.Write(part("xxx")); err != nil {
			t.Fatal(err)
		}
		if err := f.Truncate(disk); err != nil {
			t.Fatal(err)
		}
		for _, step := range [][2]int{{0, n / 2}, {n / 2, n}} {
			if err := l.Apply(f, step[0], step[1]); err != nil {
				t.Fatal(err)
			}
		}
		got := make([]byte, 3*sector)
		if _, err := f.ReadAt(got, 0); err != nil || !bytes.Equal(got, part(want)) {
			t.Errorf("after %d: %q, %v", n, []byte{got[0], got[sector], got[2*sector]}, err)
		}
		if err := f.Close(); err != nil {
			t.Fatal(err)
		}
	}
	if err := l.Apply(nil, 3, 6); err == nil {
		t.Error("more entries than there are")
	}
}

// A log is cut anywhere, as it still grows, and its beginning is the same.
func TestGrowing(t *testing.T) {
	log := encode(some...)
	whole, err := Read(bytes.NewReader(log), int64(len(log)), disk)
	if err != nil {
		t.Fatal(err)
	}
	for size := sector; size <= len(log); size += 100 {
		l, err := Read(bytes.NewReader(log[:size]), int64(size), disk)
		if err != nil || !slices.Equal(l.Entries, whole.Entries[:len(l.Entries)]) {
			t.Fatalf("%d bytes: %+v, %v", size, l, err)
		}
		if n := whole.Before(int64(size)); n != len(l.Entries) {
			t.Errorf("%d bytes: %d entries, %d before", size, len(l.Entries), n)
		}
	}
	// Room that is taken and not written yet.
	log = append(encode(some[:2]...), make([]byte, 4*sector)...)
	if l, err := Read(bytes.NewReader(log), int64(len(log)), disk); err != nil || len(l.Entries) != 2 {
		t.Errorf("%+v, %v", l, err)
	}
}

func TestNoLog(t *testing.T) {
	change := func(at int, v byte) []byte {
		log := encode(some...)
		log[at] = v
		return log
	}
	for name, log := range map[string][]byte{
		"empty": nil, "short": make([]byte, 20), "magic": change(0, 1), "version": change(8, 2), "sector size": change(25, 3), "sector size 0": change(25, 0),
		"beyond the disk": encode(record{first: 64, count: 1}), "too long": encode(record{first: 63, count: 2}),
		"wraps around": encode(record{first: 2, count: 1<<64 - 1, flags: Discard}), "flags": encode(record{flags: 1 << 20}),
	} {
		if _, err := Read(bytes.NewReader(log), int64(len(log)), disk); !errors.Is(err, ErrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCuts(t *testing.T) {
	l := &Log{}
	for i := range 100 {
		l.Entries = append(l.Entries, Entry{Offset: int64(i), Size: int64(1 + i%2)})
	}
	every := func(Entry) bool { return true }
	small := func(e Entry) bool { return e.Size == 1 }
	for _, c := range []struct {
		from, to, n int
		want        func(Entry) bool
		cuts        []int
	}{
		{0, 100, 1, every, []int{51}}, {0, 100, 4, every, []int{13, 38, 63, 88}}, {10, 13, 9, every, []int{11, 12, 13}},
		{0, 100, 2, small, []int{25, 75}}, {99, 200, 5, every, []int{100}}, {50, 50, 3, every, nil}, {0, 10, 0, every, []int{}},
	} {
		if got := l.Cuts(c.from, c.to, c.n, c.want); !slices.Equal(got, c.cuts) {
			t.Errorf("%d to %d: %v, want %v", c.from, c.to, got, c.cuts)
		}
	}
}

func FuzzRead(f *testing.F) {
	f.Add(encode(some...))
	f.Fuzz(func(t *testing.T, log []byte) {
		l, err := Read(bytes.NewReader(log), int64(len(log)), disk)
		if err != nil {
			return
		}
		for _, e := range l.Entries {
			if e.Offset < 0 || e.Size < 0 || e.Offset+e.Size > disk || e.end > int64(len(log)) {
				t.Fatalf("%+v", e)
			}
		}
	})
}
