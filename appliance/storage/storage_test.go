package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync/atomic"
	"testing"
	"testing/iotest"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
)

type rig struct {
	*Service
	dir   string
	users map[string][]string // kind/name to VMs
	ram   atomic.Int64
}

func newRig(t *testing.T) *rig {
	t.Helper()
	r := &rig{dir: t.TempDir(), users: map[string][]string{}}
	r.ram.Store(1 << 40)
	r.open(t)
	return r
}

func (r *rig) open(t *testing.T) {
	t.Helper()
	db, err := store.Open(filepath.Join(r.dir, "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	r.Service, err = Open(db, r.dir, Deps{
		Log:     slog.New(slog.DiscardHandler),
		Users:   func(kind Kind, name string) ([]string, []string) { return r.users[key(kind, name)], nil },
		RAM:     r.ram.Load,
		Kernels: testKernels{},
	})
	if err != nil {
		t.Fatal(err)
	}
}

// testKernels takes "\x7fELFGOOD" for a kernel. One that ends with "packed" unpacks
// to a mebibyte, one that ends with "broken" to less than it says.
type testKernels struct{}

const unpackedSize = 1 << 20

func (testKernels) Check(f io.ReaderAt) error {
	var version [4]byte
	if _, err := f.ReadAt(version[:], 4); err != nil || string(version[:]) != "GOOD" {
		return qverr.New(qverr.Inval, "no kernel")
	}
	return nil
}

func ending(f io.ReaderAt) string {
	data, _ := io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
	return string(data[len(data)-6:])
}

func (testKernels) UnpackedSize(f io.ReaderAt) (int64, error) {
	if e := ending(f); e != "packed" && e != "broken" {
		return 0, qverr.New(qverr.Unsupported, "not packed")
	}
	return unpackedSize, nil
}

func (testKernels) Unpack(f io.ReaderAt, w io.Writer) error {
	n := unpackedSize
	if ending(f) == "broken" {
		n--
	}
	_, err := w.Write(bytes.Repeat([]byte{'u'}, n))
	return err
}

func (testKernels) CheckUnpacked(f io.ReaderAt, size int64) error {
	var last [1]byte
	if _, err := f.ReadAt(last[:], size-1); err != nil || last[0] != 'u' {
		return qverr.New(qverr.Inval, "not whole")
	}
	return nil
}

// files lists what lies in the folders.
func (r *rig) files(t *testing.T) []string {
	t.Helper()
	var out []string
	for _, sub := range []string{"images", "disks"} {
		entries, err := os.ReadDir(filepath.Join(r.dir, sub))
		if err != nil {
			t.Fatal(err)
		}
		for _, e := range entries {
			out = append(out, sub+"/"+e.Name())
		}
	}
	return out
}

func content(n int) []byte {
	data := make([]byte, n)
	rng := rand.New(rand.NewPCG(1, 2))
	for i := range data {
		data[i] = byte(rng.Uint32())
	}
	return data
}

func TestUploadDisk(t *testing.T) {
	r := newRig(t)
	data := content(3<<20 + 700)
	clear(data[1<<20 : 2<<20]) // a hole
	d, err := r.UploadDisk(t.Context(), "d", bytes.NewReader(data), int64(len(data)), 8<<20)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	if origin, err := r.Origin(d.Name); err != nil || origin != d.Sha256 {
		t.Errorf("origin %q: %v", origin, err)
	}
	if d.SizeBytes != 8<<20 || d.Sha256 != hex.EncodeToString(sum[:]) || d.AllocatedBytes > 2<<20+128<<10 || d.AllocatedBytes < 2<<20 {
		t.Errorf("%+v", d)
	}
	f, err := r.OpenDisk("d", false)
	if err != nil {
		t.Fatal(err)
	}
	got, err := io.ReadAll(f)
	if err != nil || !bytes.Equal(got[:len(data)], data) || len(got) != 8<<20 || !bytes.Equal(got[len(data):], make([]byte, len(got)-len(data))) {
		t.Errorf("the content differs: %d bytes, %v", len(got), err)
	}
	_ = f.Close()
	if r.reserved != 0 || len(r.pending) != 0 {
		t.Errorf("reserved %d, pending %v", r.reserved, r.pending)
	}
	r.open2(t)
	if _, err := r.Disk("d"); err != nil {
		t.Errorf("after reopening: %v", err)
	}
}

// open2 is a new daemon on the same directory.
func (r *rig) open2(t *testing.T) {
	t.Helper()
	if err := r.db.Close(); err != nil {
		t.Fatal(err)
	}
	r.open(t)
}

func TestUploadsThatFailLeaveNothing(t *testing.T) {
	data := content(3 << 20)
	cancelled, cancel := context.WithCancel(t.Context())
	cancel()
	for _, c := range []struct {
		name   string
		upload func(r *rig) error
		code   qverr.Code
	}{
		{"cut in the middle", func(r *rig) error {
			_, err := r.UploadDisk(t.Context(), "d", bytes.NewReader(data[:2<<20]), int64(len(data)), 0)
			return err
		}, qverr.IO},
		{"cut in an image", func(r *rig) error {
			_, err := r.UploadImage(t.Context(), "i", spec.ImageKindRaw, bytes.NewReader(data[:1]), int64(len(data)))
			return err
		}, qverr.IO},
		{"reader fails", func(r *rig) error {
			_, err := r.UploadDisk(t.Context(), "d", iotest.TimeoutReader(iotest.OneByteReader(bytes.NewReader(data))), int64(len(data)), 0)
			return err
		}, qverr.IO},
		{"client gone", func(r *rig) error {
			_, err := r.UploadDisk(cancelled, "d", bytes.NewReader(data), int64(len(data)), 0)
			return err
		}, qverr.IO},
		{"no kernel", func(r *rig) error {
			_, err := r.UploadImage(t.Context(), "k", spec.ImageKindKernel, bytes.NewReader(data), int64(len(data)))
			return err
		}, qverr.Inval},
		{"no good kernel", func(r *rig) error {
			kernel := append([]byte("\x7fELF"), data...)
			_, err := r.UploadImage(t.Context(), "k", spec.ImageKindKernel, bytes.NewReader(kernel), int64(len(kernel)))
			return err
		}, qverr.Inval},
		{"no kernel, and long", func(r *rig) error {
			body := io.MultiReader(bytes.NewReader(data), panicReader{})
			_, err := r.UploadImage(t.Context(), "k", spec.ImageKindKernel, body, 1<<30)
			return err
		}, qverr.Inval},
		{"no kernel, and short", func(r *rig) error {
			_, err := r.UploadImage(t.Context(), "k", spec.ImageKindKernel, bytes.NewReader(data[:3]), 3)
			return err
		}, qverr.Inval},
		{"larger than the memory", func(r *rig) error {
			r.ram.Store(2 << 20)
			_, err := r.UploadDisk(t.Context(), "d", panicReader{}, int64(len(data)), 0)
			return err
		}, qverr.NoSpc},
		{"larger than the volume", func(r *rig) error {
			_, err := r.UploadDisk(t.Context(), "d", panicReader{}, 1<<60, 0)
			return err
		}, qverr.NoSpc},
		{"bad name", func(r *rig) error {
			_, err := r.UploadDisk(t.Context(), "../d", panicReader{}, 512, 0)
			return err
		}, qverr.Inval},
		{"hidden name", func(r *rig) error {
			_, err := r.UploadDisk(t.Context(), ".upload-x", panicReader{}, 512, 0)
			return err
		}, qverr.Inval},
		{"smaller than its content", func(r *rig) error {
			_, err := r.UploadDisk(t.Context(), "d", panicReader{}, 1024, 512)
			return err
		}, qverr.Inval},
		{"qcow2", func(r *rig) error {
			_, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: "d", Size: 1 << 20, Format: spec.DiskFormatQcow2})
			return err
		}, qverr.Unsupported},
		{"half a sector", func(r *rig) error {
			_, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: "d", Size: 700})
			return err
		}, qverr.Config},
		{"empty but too large", func(r *rig) error {
			_, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: "d", Size: 1 << 50})
			return err
		}, qverr.NoSpc},
	} {
		t.Run(c.name, func(t *testing.T) {
			r := newRig(t)
			if err := c.upload(r); !errors.Is(err, c.code) {
				t.Fatalf("got %v, want code %d", err, c.code)
			}
			if left := r.files(t); len(left) != 0 || len(r.Disks())+len(r.Images()) != 0 || r.reserved != 0 || len(r.pending) != 0 {
				t.Errorf("left: %v, reserved %d", left, r.reserved)
			}
		})
	}
}

// panicReader must not be read: the refusal comes before the first byte.
type panicReader struct{}

func (panicReader) Read([]byte) (int, error) { panic("the body was read") }

func TestNamesAndUse(t *testing.T) {
	r := newRig(t)
	if _, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: "d", Size: 1 << 30}); err != nil {
		t.Fatal(err)
	}
	kernel := append([]byte("\x7fELFGOOD"), content(5000)...)
	if _, err := r.UploadImage(t.Context(), "k", spec.ImageKindKernel, bytes.NewReader(kernel), int64(len(kernel))); err != nil {
		t.Fatal(err)
	}
	_, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: "d", Size: 1 << 20})
	if !errors.Is(err, qverr.Exist) {
		t.Errorf("second disk of the name: %v", err)
	}
	if _, err := r.OpenImage("k", spec.ImageKindInitrd); !errors.Is(err, qverr.Config) {
		t.Errorf("wrong kind: %v", err)
	}
	if kind, err := r.ImageKind("k"); err != nil || kind != spec.ImageKindKernel {
		t.Errorf("%s, %v", kind, err)
	}
	r.users["disk/d"] = []string{"web"}
	if err := r.DeleteDisk("d"); !errors.Is(err, qverr.Busy) {
		t.Errorf("delete of a used disk: %v", err)
	}
	if err := r.HasDisk("d"); err != nil {
		t.Errorf("a refused deletion hides the disk: %v", err)
	}
	delete(r.users, "disk/d")
	if err := r.DeleteDisk("d"); err != nil {
		t.Error(err)
	}
	if err := r.DeleteImage("k"); err != nil {
		t.Error(err)
	}
	for _, err := range []error{r.DeleteDisk("d"), r.DeleteImage("k"), r.HasDisk("d")} {
		if !errors.Is(err, qverr.NoEnt) {
			t.Errorf("after the deletion: %v", err)
		}
	}
	if left := r.files(t); len(left) != 0 {
		t.Errorf("left: %v", left)
	}
}

func TestLocks(t *testing.T) {
	r := newRig(t)
	if _, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: "d", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	open := func(readonly bool) *os.File {
		t.Helper()
		f, err := r.OpenDisk("d", readonly)
		if err != nil {
			t.Fatal(err)
		}
		return f
	}
	refused := func(readonly bool) {
		t.Helper()
		if _, err := r.OpenDisk("d", readonly); !errors.Is(err, qverr.StrLock) {
			t.Errorf("want QV_STR_ERR_LOCK, got %v", err)
		}
	}
	writer := open(false)
	refused(false)
	refused(true)
	if _, err := r.OpenPath(r.Path(KindDisk, "d"), true); !errors.Is(err, qverr.StrLock) {
		t.Errorf("by its path: %v", err)
	}
	_ = writer.Close()
	one, two := open(true), open(true)
	refused(false)
	_, _ = one.Close(), two.Close()
	_ = open(false).Close()
}

func TestPaths(t *testing.T) {
	r := newRig(t)
	if _, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: "d", Size: 1 << 20}); err != nil {
		t.Fatal(err)
	}
	if err := os.Symlink("/etc/passwd", filepath.Join(r.dir, "disks", "link")); err != nil {
		t.Fatal(err)
	}
	for path, code := range map[string]qverr.Code{
		r.Path(KindDisk, "d"):                      0,
		r.dir + "/disks/../disks/d.raw":            0,
		"/etc/passwd":                              qverr.Config,
		r.dir + "/disks/../state.db":               qverr.Config,
		r.dir + "/disks/none":                      qverr.NoEnt,
		r.dir + "/disks/link":                      qverr.Config,
		r.dir + "/disks":                           qverr.Config,
		"disks/d.raw":                              qverr.Config,
		filepath.Join(r.dir, "keystore", "ca.pem"): qverr.Config,
	} {
		if _, err := r.CheckPath(path); qverr.CodeOf(err) != code {
			t.Errorf("%s: %v", path, err)
		}
	}
}

func TestOpenClearsAway(t *testing.T) {
	r := newRig(t)
	for _, name := range []string{"gone", "stays"} {
		if _, err := r.CreateDisk(t.Context(), spec.DiskCreate{Name: name, Size: 1 << 20}); err != nil {
			t.Fatal(err)
		}
	}
	if err := os.Remove(r.Path(KindDisk, "gone")); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(filepath.Join(r.dir, "disks", tempPrefix+"123"), []byte("half"), 0o600); err != nil {
		t.Fatal(err)
	}
	r.open2(t)
	if disks := r.Disks(); len(disks) != 1 || disks[0].Name != "stays" {
		t.Errorf("disks %+v", disks)
	}
	if left := r.files(t); len(left) != 1 {
		t.Errorf("left: %v", left)
	}
}

// TestUnpacked: the unpacked form of a kernel comes and goes with it, and its lack
// hinders nobody.
func TestUnpacked(t *testing.T) {
	r := newRig(t)
	upload := func(id, end string) spec.Image {
		t.Helper()
		text := "\x7fELFGOOD" + end
		i, err := r.UploadImage(t.Context(), id, spec.ImageKindKernel, strings.NewReader(text), int64(len(text)))
		if err != nil {
			t.Fatal(err)
		}
		return i
	}
	has := func(id string) bool {
		t.Helper()
		f, err := r.OpenUnpacked(id)
		if err != nil {
			t.Fatal(err)
		}
		if f == nil {
			return false
		}
		defer func() { _ = f.Close() }()
		if st, err := f.Stat(); err != nil || st.Size() != unpackedSize {
			t.Errorf("%v, %v", st, err)
		}
		return true
	}
	if i := upload("a", "packed"); !has("a") || i.AllocatedBytes < unpackedSize {
		t.Errorf("%+v", i)
	}
	upload("plain", "nothing")
	upload("short", "broken")
	r.ram.Store(unpackedSize - 1)
	upload("full", "packed")
	r.ram.Store(1 << 40)
	for _, id := range []string{"plain", "short", "full"} {
		if has(id) {
			t.Errorf("%s has an unpacked form", id)
		}
	}
	if free, err := r.Free(); err != nil || r.reserved != 0 || free <= 0 {
		t.Errorf("%d reserved, %d free, %v", r.reserved, free, err)
	}
	text := "\x7fELFGOODpacked"
	if _, err := r.UploadImage(t.Context(), "a", spec.ImageKindKernel, strings.NewReader(text), int64(len(text))); !errors.Is(err, qverr.Exist) || !has("a") {
		t.Errorf("a second upload: %v", err)
	}
	if err := r.DeleteImage("a"); err != nil || has("a") {
		t.Errorf("after the deletion: %v", err)
	}
	// What a crash left is cleared away.
	upload("b", "packed")
	orphan := r.unpackedPath("gone")
	if err := os.WriteFile(orphan, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	r.db.Close()
	r.open(t)
	if _, err := os.Stat(orphan); !errors.Is(err, os.ErrNotExist) || !has("b") {
		t.Errorf("orphan: %v", err)
	}
}

func TestNames(t *testing.T) {
	for name, good := range map[string]bool{
		"a": true, "Debian-13.8_amd64": true, "-": true, strings.Repeat("z", 64): true,
		"": false, ".hidden": false, "..": false, "a/b": false, "a b": false, "bäh": false, "a\x00": false, strings.Repeat("z", 65): false,
	} {
		if err := checkName(name); (err == nil) != good {
			t.Errorf("%.20q: %v", name, err)
		}
	}
}
