package block

import (
	"bytes"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

func newDisk(t *testing.T, size int64, opts Options) (*Raw, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.raw")
	f, err := os.OpenFile(path, os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		t.Fatal(err)
	}
	r, err := OpenRaw(f, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, path
}

// split cuts b into vectors of odd lengths, an empty one among them.
func split(b []byte, rng *rand.Rand) [][]byte {
	iov := [][]byte{{}}
	for len(b) > 0 {
		n := min(len(b), 1+rng.IntN(3000))
		iov, b = append(iov, b[:n]), b[n:]
	}
	return iov
}

func TestRawAgainstMemory(t *testing.T) {
	for _, cache := range []Cache{CacheWriteback, CacheWritethrough, CacheNone} {
		t.Run(string(cache), func(t *testing.T) {
			const size = 2 << 20
			disk, path := newDisk(t, size, Options{Cache: cache})
			t.Logf("O_DIRECT: %v", disk.Direct())
			rng := rand.New(rand.NewPCG(1, 2))
			model := make([]byte, size)
			for i := range 400 {
				off := rng.Int64N(size)
				n := rng.Int64N(min(size-off, 300<<10)) + 1
				if i%3 == 0 {
					off, n = off&^511, (n+511)&^511
				}
				n = min(n, size-off)
				step(t, disk, model, rng, off, n)
			}
			if err := disk.Flush(); err != nil {
				t.Fatal(err)
			}
			onDisk, err := os.ReadFile(path)
			if err != nil || !bytes.Equal(onDisk, model) {
				t.Fatalf("file differs from the model (%v)", err)
			}
		})
	}
}

func step(t *testing.T, disk *Raw, model []byte, rng *rand.Rand, off, n int64) {
	t.Helper()
	switch rng.IntN(4) {
	case 0:
		if err := disk.WriteZeroes(off, n, rng.IntN(2) == 0); err != nil {
			t.Fatal(err)
		}
		clear(model[off : off+n])
	case 1:
		got := make([]byte, n)
		if err := disk.ReadVec(split(got, rng), off); err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got, model[off:off+n]) {
			t.Fatalf("read of %d bytes at %d differs", n, off)
		}
	default:
		data := make([]byte, n)
		for i := range data {
			data[i] = byte(rng.Uint32())
		}
		if err := disk.WriteVec(split(data, rng), off); err != nil {
			t.Fatal(err)
		}
		copy(model[off:], data)
	}
}

func TestRawDirectOnAlignedMemory(t *testing.T) {
	disk, _ := newDisk(t, 1<<20, Options{Cache: CacheNone})
	if !disk.Direct() {
		t.Skip("the file system under the temporary directory does not do O_DIRECT by sectors")
	}
	mem, err := unix.Mmap(-1, 0, 64<<10, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE)
	if err != nil {
		t.Fatal(err)
	}
	defer unix.Munmap(mem)
	copy(mem, "past the page cache")
	if !disk.aligned([][]byte{mem}, 512) || disk.aligned([][]byte{mem[1:513]}, 512) || disk.aligned([][]byte{mem}, 100) {
		t.Fatal("alignment is judged wrong")
	}
	if err := disk.WriteVec([][]byte{mem[:32768], mem[32768:]}, 512); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 19)
	if err := disk.ReadVec([][]byte{got}, 512); err != nil || string(got) != "past the page cache" {
		t.Fatalf("%q, %v", got, err)
	}
}

func TestRawRefuses(t *testing.T) {
	disk, path := newDisk(t, 4096+100, Options{})
	if disk.Size() != 4096 {
		t.Fatalf("size %d", disk.Size())
	}
	ro, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	readOnly, err := OpenRaw(ro, Options{ReadOnly: true})
	if err != nil {
		t.Fatal(err)
	}
	defer readOnly.Close()
	buf := [][]byte{make([]byte, 512)}
	for _, tc := range []struct {
		name string
		err  error
		want qverr.Code
	}{
		{"read past the end", disk.ReadVec(buf, 4096-511), qverr.Inval},
		{"write past the end", disk.WriteVec(buf, 4096), qverr.Inval},
		{"negative offset", disk.WriteVec(buf, -1), qverr.Inval},
		{"offset that wraps", disk.WriteVec(buf, 1<<63-1), qverr.Inval},
		{"discard past the end", disk.Discard(0, 4097), qverr.Inval},
		{"zeroes past the end", disk.WriteZeroes(4000, 97, false), qverr.Inval},
		{"length that wraps", disk.Discard(1, 1<<63-1), qverr.Inval},
		{"write to read-only", readOnly.WriteVec(buf, 0), qverr.StrReadonly},
		{"discard on read-only", readOnly.Discard(0, 512), qverr.StrReadonly},
		{"zeroes on read-only", readOnly.WriteZeroes(0, 512, true), qverr.StrReadonly},
		{"flush on read-only", readOnly.Flush(), qverr.Success},
		{"read at the end", disk.ReadVec(buf, 4096-512), qverr.Success},
		{"nothing at the end", disk.ReadVec(nil, 4096), qverr.Success},
	} {
		if got := qverr.CodeOf(tc.err); got != tc.want {
			t.Errorf("%s: %v (%v), want %v", tc.name, got, tc.err, tc.want)
		}
	}
}

func TestOpenRawRefuses(t *testing.T) {
	dir := t.TempDir()
	empty := filepath.Join(dir, "empty")
	if err := os.WriteFile(empty, make([]byte, 511), 0o600); err != nil {
		t.Fatal(err)
	}
	full := filepath.Join(dir, "full")
	if err := os.WriteFile(full, make([]byte, 512), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, tc := range []struct {
		path string
		flag int
		opts Options
		want qverr.Code
	}{
		{empty, os.O_RDWR, Options{}, qverr.StrFormat},
		{full, os.O_RDONLY, Options{}, qverr.StrReadonly},
		{full, os.O_RDWR, Options{Cache: "lazy"}, qverr.Inval},
		{dir, os.O_RDONLY, Options{ReadOnly: true}, qverr.StrOpen},
		{"/dev/null", os.O_RDWR, Options{}, qverr.StrOpen},
	} {
		f, err := os.OpenFile(tc.path, tc.flag, 0)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := OpenRaw(f, tc.opts); qverr.CodeOf(err) != tc.want {
			t.Errorf("%s %+v: %v, want %v", tc.path, tc.opts, err, tc.want)
		}
		f.Close()
	}
}

func TestRawCutWhileInUse(t *testing.T) {
	disk, path := newDisk(t, 8192, Options{})
	if err := os.Truncate(path, 1000); err != nil {
		t.Fatal(err)
	}
	err := disk.ReadVec([][]byte{make([]byte, 4096)}, 0)
	if !errors.Is(err, qverr.StrIO) {
		t.Fatalf("%v", err)
	}
}

// TestRawFull needs a file system of its own, and so root.
func TestRawFull(t *testing.T) {
	dir := t.TempDir()
	if err := unix.Mount("full", dir, "tmpfs", 0, "size=64k"); err != nil {
		t.Skipf("mounting a tmpfs needs root: %v", err)
	}
	t.Cleanup(func() { _ = unix.Unmount(dir, unix.MNT_DETACH) })
	f, err := os.OpenFile(filepath.Join(dir, "disk"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(1 << 20); err != nil {
		t.Fatal(err)
	}
	disk, err := OpenRaw(f, Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	data := [][]byte{make([]byte, 128<<10)}
	if err := disk.WriteVec(data, 0); !errors.Is(err, qverr.StrFull) {
		t.Fatalf("write to a full volume: %v", err)
	}
	// Space that a discard frees can be used again.
	if err := disk.Discard(0, 64<<10); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteVec([][]byte{make([]byte, 16<<10)}, 512<<10); err != nil {
		t.Fatalf("write after a discard: %v", err)
	}
}

func TestRawDiscardFreesSpace(t *testing.T) {
	disk, path := newDisk(t, 1<<20, Options{})
	if err := disk.WriteVec([][]byte{bytes.Repeat([]byte{0xaa}, 1<<20)}, 0); err != nil {
		t.Fatal(err)
	}
	if err := disk.Flush(); err != nil {
		t.Fatal(err)
	}
	before := blocks(t, path)
	err := disk.Discard(256<<10, 512<<10)
	if errors.Is(err, qverr.StrDiscard) {
		t.Skip("the file system cannot punch holes")
	}
	if err != nil {
		t.Fatal(err)
	}
	if after := blocks(t, path); before-after < 1000 {
		t.Fatalf("%d blocks of 512 before, %d after", before, after)
	}
}

func blocks(t *testing.T, path string) int64 {
	t.Helper()
	var st unix.Stat_t
	if err := unix.Stat(path, &st); err != nil {
		t.Fatal(err)
	}
	return st.Blocks
}

func TestZeroesWithoutFallocate(t *testing.T) {
	disk, _ := newDisk(t, 3<<20, Options{})
	disk.noPunch.Store(true)
	disk.noZero.Store(true)
	if err := disk.WriteVec([][]byte{bytes.Repeat([]byte{1}, 3<<20)}, 0); err != nil {
		t.Fatal(err)
	}
	if err := disk.WriteZeroes(7, 2<<20, true); err != nil {
		t.Fatal(err)
	}
	got := make([]byte, 3<<20)
	if err := disk.ReadVec([][]byte{got}, 0); err != nil {
		t.Fatal(err)
	}
	want := bytes.Repeat([]byte{1}, 3<<20)
	clear(want[7 : 7+2<<20])
	if !bytes.Equal(got, want) {
		t.Fatal("wrong range was zeroed")
	}
	if err := disk.Discard(0, 512); !errors.Is(err, qverr.StrDiscard) {
		t.Fatalf("discard: %v", err)
	}
}

func TestLock(t *testing.T) {
	_, path := newDisk(t, 4096, Options{})
	open := func() *os.File {
		f, err := os.OpenFile(path, os.O_RDWR, 0)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { f.Close() })
		return f
	}
	first, second, third := open(), open(), open()
	if err := Lock(first, true); err != nil {
		t.Fatal(err)
	}
	if err := Lock(second, false); !errors.Is(err, qverr.StrLock) {
		t.Fatalf("second lock: %v", err)
	}
	// A copy keeps the lock when the first is closed.
	dup, err := unix.Dup(int(first.Fd()))
	if err != nil {
		t.Fatal(err)
	}
	first.Close()
	if err := Lock(second, false); !errors.Is(err, qverr.StrLock) {
		t.Fatalf("lock while a copy is open: %v", err)
	}
	unix.Close(dup)
	if err := Lock(second, false); err != nil {
		t.Fatal(err)
	}
	if err := Lock(third, false); err != nil {
		t.Fatalf("two readers: %v", err)
	}
}

func TestParallelWrites(t *testing.T) {
	disk, path := newDisk(t, 1<<20, Options{Cache: CacheNone})
	var wg sync.WaitGroup
	for i := range 8 {
		wg.Go(func() {
			part := bytes.Repeat([]byte{byte(i + 1)}, 4096)
			for off := int64(i) * 4096; off < 1<<20; off += 8 * 4096 {
				if err := disk.WriteVec([][]byte{part}, off); err != nil {
					t.Error(err)
				}
			}
		})
	}
	wg.Wait()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	for i, b := range data {
		if want := byte(i/4096%8 + 1); b != want {
			t.Fatalf("byte %d is %d, want %d", i, b, want)
		}
	}
}
