package backup

import (
	"archive/tar"
	"bytes"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
)

const secret = "correct horse battery staple"

// rig is a node with state.
type rig struct {
	t        *testing.T
	dir      string
	db       *store.DB
	s        *Service
	vms      []spec.VM
	restarts int
}

func newRig(t *testing.T, value string) *rig {
	t.Helper()
	g := &rig{t: t, dir: t.TempDir()}
	for name, data := range map[string]string{"keystore/ca.pem": "the authority of " + value, "configs/web.json": "{}", "disks/web": "contents"} {
		g.write(name, data)
	}
	g.open()
	if err := g.db.Put(store.Settings, "value", value); err != nil {
		t.Fatal(err)
	}
	return g
}

func (g *rig) write(name, data string) {
	g.t.Helper()
	path := filepath.Join(g.dir, name)
	if err := errors.Join(os.MkdirAll(filepath.Dir(path), 0o700), os.WriteFile(path, []byte(data), 0o600)); err != nil {
		g.t.Fatal(err)
	}
}

func (g *rig) open() {
	g.t.Helper()
	var err error
	if g.db, err = store.Open(filepath.Join(g.dir, stateFile)); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { _ = g.db.Close() })
	g.s = New(Deps{
		Log: slog.New(slog.DiscardHandler), DB: g.db, DataDir: g.dir, Version: "1", VMs: func() []spec.VM { return g.vms },
		Images: func() []spec.Image { return []spec.Image{{ID: "linux", SizeBytes: 5, Sha256: "aa"}} }, Disks: func() []spec.Disk { return nil },
		Node: func() (string, string) { return "n1", "node7" }, Restart: func() { g.restarts++ },
	})
}

// restart is the daemon starting anew.
func (g *rig) restart() (restored bool) {
	g.t.Helper()
	_ = g.db.Close()
	restored, err := Finish(g.dir)
	if err != nil {
		g.t.Fatal(err)
	}
	g.open()
	return restored
}

func (g *rig) value() string {
	g.t.Helper()
	var v string
	if err := g.db.Get(store.Settings, "value", &v); err != nil {
		g.t.Fatal(err)
	}
	return v
}

func (g *rig) backup() []byte {
	g.t.Helper()
	p, err := g.s.Prepare(secret)
	if err != nil {
		g.t.Fatal(err)
	}
	defer p.Close()
	var out bytes.Buffer
	if err := p.Write(&out); err != nil {
		g.t.Fatal(err)
	}
	return out.Bytes()
}

// files are all files below the data directory but the state file's pages.
func (g *rig) files() map[string]string {
	g.t.Helper()
	out := make(map[string]string)
	err := filepath.WalkDir(g.dir, func(p string, d fs.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return err
		}
		data, err := os.ReadFile(p)
		name, _ := filepath.Rel(g.dir, p)
		out[name] = string(data)
		if filepath.Base(p) == stateFile {
			out[name] = ""
		}
		return err
	})
	if err != nil {
		g.t.Fatal(err)
	}
	return out
}

func TestThereAndBack(t *testing.T) {
	from := newRig(t, "one")
	from.write("uplink.json", `{"version":1}`)
	file := from.backup()
	if bytes.Contains(file, []byte("authority")) || bytes.Contains(file, []byte("ca.pem")) {
		t.Error("the file can be read without its passphrase")
	}
	if names := slices.Sorted(maps.Keys(from.files())); slices.ContainsFunc(names, func(n string) bool { return strings.HasPrefix(n, ".") }) {
		t.Errorf("left behind: %v", names)
	}

	to := newRig(t, "two")
	to.write("keystore/other", "not in the backup")
	m, err := to.s.Restore(bytes.NewReader(file), secret)
	if err != nil || to.restarts != 1 || m.NodeID != "n1" || m.Hostname != "node7" || len(m.Images) != 1 || m.Images[0].SHA256 != "aa" {
		t.Fatalf("%+v, %v, %d restarts", m, err, to.restarts)
	}
	if to.value() != "two" {
		t.Error("the state was replaced under a daemon that runs")
	}
	if !to.restart() || to.value() != "one" {
		t.Errorf("after the restart: %s", to.value())
	}
	want := map[string]string{
		"state.db": "", "keystore/ca.pem": "the authority of one", "configs/web.json": "{}", "disks/web": "contents", "uplink.json": `{"version":1}`,
		"state-before/state.db": "", "state-before/keystore/ca.pem": "the authority of two", "state-before/keystore/other": "not in the backup",
		"state-before/configs/web.json": "{}",
	}
	if got := to.files(); !maps.Equal(got, want) {
		t.Errorf("files %v", got)
	}
	if to.restart() {
		t.Error("restored twice")
	}

	// A part that the backup does not have goes.
	if err := os.Remove(filepath.Join(from.dir, "uplink.json")); err != nil {
		t.Fatal(err)
	}
	if _, err := to.s.Restore(bytes.NewReader(from.backup()), secret); err != nil {
		t.Fatal(err)
	}
	to.restart()
	if got := to.files(); got["state-before/uplink.json"] == "" || got["uplink.json"] != "" {
		t.Errorf("files %v", got)
	}
}

// The power goes after every step of putting a restored state in place.
func TestFinishCutOff(t *testing.T) {
	from := newRig(t, "one")
	file := from.backup()
	for cut := 0; ; cut++ {
		to := newRig(t, "two")
		to.write("uplink.json", "old")
		if _, err := to.s.Restore(bytes.NewReader(file), secret); err != nil {
			t.Fatal(err)
		}
		_ = to.db.Close()
		whole := cutAfter(t, to.dir, cut)
		if !whole && !to.restart() {
			t.Errorf("cut after %d steps: not restored", cut)
		} else if whole {
			to.open()
		}
		got := to.files()
		if to.value() != "one" || got["keystore/ca.pem"] != "the authority of one" || got["uplink.json"] != "" ||
			got["state-before/keystore/ca.pem"] != "the authority of two" || got["state-before/uplink.json"] != "old" {
			t.Errorf("cut after %d steps: %s, %v", cut, to.value(), got)
		}
		if whole {
			return
		}
	}
}

// cutAfter does the first steps of Finish by itself: the same renames in the same
// order. It says whether that were all.
func cutAfter(t *testing.T, dir string, steps int) bool {
	t.Helper()
	in := func(parts ...string) string { return filepath.Join(append([]string{dir}, parts...)...) }
	_ = os.MkdirAll(in(before), 0o700)
	for _, name := range append(slices.Clone(folders), single...) {
		for _, r := range [][2]string{{in(name), in(before, name)}, {in(wanted, name), in(name)}} {
			if _, err := os.Lstat(r[0]); err != nil {
				continue
			}
			if steps == 0 {
				return false
			}
			steps--
			if err := os.Rename(r[0], r[1]); err != nil {
				t.Fatal(err)
			}
		}
	}
	if steps == 0 {
		return false
	}
	restored, err := Finish(dir)
	if err != nil || !restored {
		t.Fatalf("the last step: %v, %v", restored, err)
	}
	return true
}

// Whatever is wrong with a backup, nothing changes.
func TestRefused(t *testing.T) {
	g := newRig(t, "one")
	good := g.backup()
	flipped := func(at int) []byte { b := bytes.Clone(good); b[at] ^= 1; return b }
	before := g.files()
	for _, c := range []struct {
		name, secret string
		file         []byte
		running      bool
		code         qverr.Code
	}{
		{"another passphrase", secret + ".", good, false, qverr.Inval},
		{"a VM runs", secret, good, true, qverr.State},
		{"empty", secret, nil, false, qverr.Config},
		{"no backup", secret, bytes.Repeat([]byte("x"), 1000), false, qverr.Config},
		{"later version", secret, flipped(9), false, qverr.Version},
		{"salt", secret, flipped(saltAt), false, qverr.Inval},
		{"header's MAC", secret, flipped(macAt), false, qverr.Inval},
		{"first chunk", secret, flipped(headerSize), false, qverr.Config},
		{"last byte", secret, flipped(len(good) - 1), false, qverr.Config},
		{"cut", secret, good[:len(good)-1], false, qverr.Config},
		{"cut after the header", secret, good[:headerSize], false, qverr.Config},
		{"more at the end", secret, append(bytes.Clone(good), 0), false, qverr.Config},
		{"state file that is none", secret, sealed(t, Manifest{Format: 1, Files: []File{{stateFile, 2, sumOfNo}}}, "no"), false, qverr.IO},
		{"file elsewhere", secret, sealed(t, Manifest{Format: 1, Files: []File{{stateFile, 2, sumOfNo}, {"../x", 2, sumOfNo}}}, "no", "no"), false, qverr.Config},
		{"file of another kind", secret, sealed(t, Manifest{Format: 1, Files: []File{{stateFile, 2, sumOfNo}, {"disks/x", 2, sumOfNo}}}, "no", "no"), false, qverr.Config},
		{"another hash", secret, sealed(t, Manifest{Format: 1, Files: []File{{stateFile, 2, sumOfNo}}}, "yo"), false, qverr.Config},
		{"no state file", secret, sealed(t, Manifest{Format: 1, Files: []File{{"configs/a", 2, sumOfNo}}}, "no"), false, qverr.Config},
		{"later archive", secret, sealed(t, Manifest{Format: 2, Files: []File{{stateFile, 2, sumOfNo}}}, "no"), false, qverr.Version},
	} {
		g.vms = nil
		if c.running {
			g.vms = []spec.VM{{Name: "web", State: spec.VMStateRUNNING}}
		}
		_, err := g.s.Restore(bytes.NewReader(c.file), c.secret)
		if qverr.CodeOf(err) != c.code || g.restarts != 0 {
			t.Errorf("%s: %v, %d restarts", c.name, err, g.restarts)
		}
		if after := g.files(); !maps.Equal(after, before) {
			t.Errorf("%s: files %v", c.name, after)
		}
	}
	// Cut at every chunk's end, where what is there is authentic.
	for at := headerSize + chunkSize + 16; at < len(good); at += chunkSize + 16 {
		if _, err := g.s.Restore(bytes.NewReader(good[:at]), secret); !errors.Is(err, qverr.Config) {
			t.Errorf("cut at %d: %v", at, err)
		}
	}
	if _, err := g.s.Prepare("short"); !errors.Is(err, qverr.Inval) {
		t.Error(err)
	}
}

// sumOfNo is the SHA-256 of "no".
const sumOfNo = "9390298f3fb0c5b160498935d79cb139aef28e1c47358b4bbba61862b9c26e59"

// sealed is a backup that somebody with the passphrase made.
func sealed(t *testing.T, m Manifest, contents ...string) []byte {
	t.Helper()
	var list []source
	for i, f := range m.Files {
		path := filepath.Join(t.TempDir(), fmt.Sprint(i))
		if err := os.WriteFile(path, []byte(contents[i]), 0o600); err != nil {
			t.Fatal(err)
		}
		list = append(list, source{f, path})
	}
	var out bytes.Buffer
	s, err := newSealer(&out, secret)
	if err == nil {
		err = errors.Join(pack(s, m, list), s.Close())
	}
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// Chunks of every length around the boundary come back.
func TestSeal(t *testing.T) {
	for _, n := range []int{0, 1, chunkSize - 1, chunkSize, chunkSize + 1, 3 * chunkSize} {
		plain := bytes.Repeat([]byte{7}, n)
		var out bytes.Buffer
		s, err := newSealer(&out, secret)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := s.Write(plain); err != nil || s.Close() != nil {
			t.Fatal(err)
		}
		o, err := newOpener(&out, secret)
		if err != nil {
			t.Fatal(err)
		}
		if got, err := io.ReadAll(o); err != nil || !bytes.Equal(got, plain) {
			t.Errorf("%d bytes became %d, %v", n, len(got), err)
		}
	}
}

// A header that is accepted is bounded, and no other.
func FuzzHeader(f *testing.F) {
	h, err := newHeader()
	if err != nil {
		f.Fatal(err)
	}
	f.Add(h.raw[:])
	f.Add([]byte(magic))
	f.Fuzz(func(t *testing.T, data []byte) {
		h, err := parseHeader(data)
		if err == nil && (h.mem > maxMemory || h.pass > maxPasses || h.lanes > maxLanes || h.chunk > maxChunk || h.chunk < minChunk) {
			t.Errorf("%+v", h)
		}
	})
}

// Chunks that nobody sealed are refused. The key is fixed: what deriving one costs
// is not what is looked at.
func FuzzChunks(f *testing.F) {
	aead, err := newAEAD(make([]byte, 32))
	if err != nil {
		f.Fatal(err)
	}
	head := header{chunk: minChunk}
	good := aead.Seal(nil, nonce(0, true), []byte("hello"), head.raw[:])
	f.Add(good)
	f.Add(make([]byte, minChunk+16+1))
	f.Fuzz(func(t *testing.T, data []byte) {
		o := &opener{head: head, aead: aead, in: make([]byte, minChunk+16)}
		o.reset(bytes.NewReader(data))
		got, err := io.ReadAll(o)
		if (err == nil) != bytes.Equal(data, good) || err == nil && string(got) != "hello" {
			t.Errorf("%x: %q, %v", data, got, err)
		}
	})
}

// An archive of anybody is unpacked into its folder or refused.
func FuzzUnpack(f *testing.F) {
	var out bytes.Buffer
	w := tar.NewWriter(&out)
	manifest := `{"format":1,"files":[{"name":"state.db","size":2,"sha256":"` + sumOfNo + `"}]}`
	if err := errors.Join(add(w, manifestFile, int64(len(manifest)), strings.NewReader(manifest)), add(w, stateFile, 2, strings.NewReader("no")), w.Close()); err != nil {
		f.Fatal(err)
	}
	f.Add(out.Bytes())
	f.Fuzz(func(t *testing.T, data []byte) {
		root := t.TempDir()
		dir := filepath.Join(root, "in")
		if err := os.Mkdir(dir, 0o700); err != nil {
			t.Fatal(err)
		}
		m, err := unpack(bytes.NewReader(data), dir)
		if entries, _ := os.ReadDir(root); len(entries) != 1 {
			t.Fatalf("it left its folder: %v", entries)
		}
		if err != nil {
			return
		}
		for _, f := range m.Files {
			if !allowed(f.Name) {
				t.Errorf("unpacked %q", f.Name)
			}
		}
	})
}
