package update

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"maps"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

// memory is a Volume that remembers every state that a power cut could leave it
// in.
type memory struct {
	files map[string][]byte // contents are never changed in place
	size  int64
	// states are those between operations and within them.
	states []map[string][]byte
	log    []string // what led to each
	spoil  string   // a file whose content goes bad when it is written
}

func newMemory(size int64) *memory { return &memory{files: make(map[string][]byte), size: size} }

func (m *memory) state(what string, files map[string][]byte) {
	m.states = append(m.states, files)
	m.log = append(m.log, what)
}

// now records the present state.
func (m *memory) now(what string) { m.state(what, maps.Clone(m.files)) }

func (m *memory) List(dir string) ([]string, error) {
	found := make(map[string]bool)
	for name := range m.files {
		if rest, ok := strings.CutPrefix(name, dir+"/"); ok {
			first, _, _ := strings.Cut(rest, "/")
			found[first] = true
		}
	}
	return slices.Collect(maps.Keys(found)), nil
}

type memoryFile struct{ *bytes.Reader }

func (memoryFile) Close() error { return nil }

func (m *memory) Open(name string) (ReadAtCloser, int64, error) {
	data, ok := m.files[name]
	if !ok {
		return nil, 0, failed("open", name, fs.ErrNotExist)
	}
	return memoryFile{bytes.NewReader(data)}, int64(len(data)), nil
}

func (m *memory) Create(name string, fill func(io.Writer) error) error {
	delete(m.files, name)
	m.now("begin " + name)
	var b bytes.Buffer
	free, _ := m.Free()
	err := fill(&limited{&b, free})
	data := b.Bytes()
	if name == m.spoil {
		data = bytes.Clone(data)
		data[len(data)/2] ^= 1
	}
	// Sectors reach the disk in any order: half of a file, or zeroes for it.
	m.files[name] = data[:len(data)/2]
	m.now("half of " + name)
	m.files[name] = make([]byte, len(data))
	m.now("zeroes for " + name)
	if err != nil {
		delete(m.files, name)
		m.now("end of " + name)
		return err
	}
	m.files[name] = data
	m.now("all of " + name)
	return nil
}

type limited struct {
	w    io.Writer
	left int64
}

func (l *limited) Write(p []byte) (int, error) {
	if int64(len(p)) > l.left {
		return 0, qverr.New(qverr.NoSpc, "full")
	}
	l.left -= int64(len(p))
	return l.w.Write(p)
}

func (m *memory) Overwrite(name string, data []byte) error {
	if old, ok := m.files[name]; !ok || len(old) != len(data) {
		return failed("write over", name, fs.ErrInvalid)
	}
	// Sector by sector; each is old or new.
	torn := append(bytes.Clone(data[:512]), m.files[name][512:]...)
	m.files[name] = torn
	m.now("first sector of " + name)
	m.files[name] = data
	m.now("all over " + name)
	return nil
}

// Rename on FAT is two changes of directories: a cut may show both names, or
// neither.
func (m *memory) Rename(from, to string) error {
	data, ok := m.files[from]
	if !ok {
		return failed("rename", from, fs.ErrNotExist)
	}
	delete(m.files, from)
	m.now("neither " + from + " nor " + to)
	m.files[from], m.files[to] = data, data
	m.now("both " + from + " and " + to)
	delete(m.files, from)
	m.now("renamed to " + to)
	return nil
}

func (m *memory) Remove(name string) error {
	delete(m.files, name)
	m.now("removed " + name)
	return nil
}

func (m *memory) Free() (int64, error) {
	free := m.size
	for _, data := range m.files {
		free -= int64(len(data))
	}
	return free, nil
}

func create(t *testing.T, v Volume, name, text string) {
	t.Helper()
	if err := v.Create(name, func(w io.Writer) error { _, err := io.WriteString(w, text); return err }); err != nil {
		t.Fatal(err)
	}
}

func content(t *testing.T, v Volume, name string) string {
	t.Helper()
	f, size, err := v.Open(name)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, size))
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

// Both kinds of volume behave alike.
func TestVolume(t *testing.T) {
	dir := t.TempDir()
	real, err := openFolder(dir)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(real.close)
	for name, v := range map[string]Volume{"folder": real, "memory": newMemory(1 << 30)} {
		t.Run(name, func(t *testing.T) { testVolume(t, v) })
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(dir, "link")); err != nil {
		t.Fatal(err)
	}
	if _, _, err := real.Open("link"); err == nil {
		t.Error("a link led out of the partition")
	}
	if _, _, err := real.Open("qv"); err == nil {
		t.Error("a folder was opened as a file")
	}
}

func testVolume(t *testing.T, v Volume) {
	if names, err := v.List("qv"); err != nil || len(names) != 0 {
		t.Errorf("a folder that is not there: %v %v", names, err)
	}
	create(t, v, "qv/00000001/slot.json", "one")
	create(t, v, "qv/00000001/slot.json", "two")
	create(t, v, "qv/00000001/other", "x")
	if got := content(t, v, "qv/00000001/slot.json"); got != "two" {
		t.Errorf("replaced: %q", got)
	}
	names, err := v.List("qv/00000001")
	slices.Sort(names)
	if err != nil || !slices.Equal(names, []string{"other", "slot.json"}) {
		t.Errorf("%v %v", names, err)
	}
	if err := v.Rename("qv/00000001/other", "qv/00000001/slot.json"); err != nil {
		t.Fatal(err)
	}
	if got := content(t, v, "qv/00000001/slot.json"); got != "x" {
		t.Errorf("renamed: %q", got)
	}
	if err := v.Overwrite("qv/00000001/slot.json", []byte("longer")); err == nil {
		t.Error("written over with another length")
	}
	if err := v.Rename("nothing", "something"); qverr.CodeOf(err) != qverr.NoEnt {
		t.Errorf("rename of nothing: %v", err)
	}
	if _, _, err := v.Open("nothing"); qverr.CodeOf(err) != qverr.NoEnt {
		t.Errorf("open nothing: %v", err)
	}
	stop := errors.New("stop")
	if err := v.Create("qv/part", func(w io.Writer) error { _, _ = w.Write([]byte("half")); return stop }); !errors.Is(err, stop) {
		t.Errorf("an error while writing: %v", err)
	}
	if names, _ := v.List("qv"); !slices.Equal(names, []string{"00000001"}) {
		t.Errorf("left of a file that was not written: %v", names)
	}
	for _, name := range []string{"qv/00000001/slot.json", "qv/00000001", "qv/00000001"} {
		if err := v.Remove(name); err != nil {
			t.Errorf("remove %s: %v", path.Base(name), err)
		}
	}
	if free, err := v.Free(); err != nil || free <= 0 {
		t.Errorf("free %d %v", free, err)
	}
}
