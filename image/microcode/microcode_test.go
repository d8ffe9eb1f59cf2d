package microcode

import (
	"bytes"
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"testing"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/uio/uio"

	"quantavirt/image/tools"
)

// update makes one of Intel's form with a right checksum.
func update(fill byte, size int) []byte {
	b := bytes.Repeat([]byte{fill}, max(size, oldSize))
	clear(b[:header])
	le := binary.LittleEndian
	le.PutUint32(b, versionOne)
	le.PutUint32(b[sizeAt:], uint32(size))
	var sum uint32
	for i := 0; i < len(b); i += 4 {
		sum += le.Uint32(b[i:])
	}
	le.PutUint32(b[16:], -sum)
	return b
}

var amd = []byte("DMA\x00container")

func unpack(t *testing.T, archive []byte) map[string][]byte {
	t.Helper()
	records, err := cpio.ReadAllRecords(cpio.Newc.Reader(bytes.NewReader(archive)))
	if err != nil {
		t.Fatal(err)
	}
	files := map[string][]byte{}
	for _, r := range records {
		if files[r.Name], err = io.ReadAll(uio.Reader(r.ReaderAt)); err != nil {
			t.Fatal(err)
		}
	}
	return files
}

func TestArchive(t *testing.T) {
	a, b, old := update(1, 3072), update(2, 4096), update(3, 0)
	archive, err := Archive([][]byte{a, append(bytes.Clone(b), a...), old}, [][]byte{amd, amd})
	if err != nil {
		t.Fatal(err)
	}
	files := unpack(t, archive)
	if len(files) != 2 || !bytes.Equal(files[intelFile], bytes.Join([][]byte{a, b, old}, nil)) ||
		!bytes.Equal(files[amdFile], append(bytes.Clone(amd), amd...)) {
		t.Errorf("%d files, Intel's with %d bytes", len(files), len(files[intelFile]))
	}
	again, err := Archive([][]byte{a, append(bytes.Clone(b), a...), old}, [][]byte{amd, amd})
	if err != nil || !bytes.Equal(archive, again) {
		t.Errorf("a second archive differs, %v", err)
	}
}

func TestArchiveRefuses(t *testing.T) {
	flipped := update(1, 3072)
	flipped[100]++
	other := update(1, 3072)
	other[0] = 2
	for name, file := range map[string][]byte{
		"short": []byte("x"), "cut": update(1, 4096)[:3072], "checksum": flipped, "version": other,
		"more": append(update(1, 3072), 0), "size": update(1, 3000)[:3000],
	} {
		if _, err := Archive([][]byte{file}, nil); err == nil {
			t.Errorf("Intel, %s: taken", name)
		}
	}
	if _, err := Archive(nil, [][]byte{[]byte("AMD")}); err == nil {
		t.Error("AMD: took what is no container")
	}
}

// TestDebian makes the archive of Debian's packages, each update of which must
// be right.
func TestDebian(t *testing.T) {
	root, ok := tools.CachedFirmware()
	if !ok {
		t.Skip("the root of firmware packages is not there: make image BUILD=hardware makes it")
	}
	var files [2][][]byte
	for i, pattern := range []string{"intel-ucode/*", "amd-ucode/*.bin"} {
		names, err := filepath.Glob(root.Path("usr", "lib", "firmware", pattern))
		if err != nil || len(names) == 0 {
			t.Fatalf("%s: %v", pattern, err)
		}
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				t.Fatal(err)
			}
			files[i] = append(files[i], data)
		}
	}
	archive, err := Archive(files[0], files[1])
	if err != nil {
		t.Fatal(err)
	}
	t.Logf("%d KiB", len(archive)>>10)
}
