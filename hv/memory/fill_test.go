package memory

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"

	"quantavirt/internal/qverr"
)

func TestFill(t *testing.T) {
	content := make([]byte, 3*PageSize+100)
	for i := range content {
		content[i] = byte(i*7 + i>>8)
	}
	path := filepath.Join(t.TempDir(), "file")
	if err := os.WriteFile(path, content, 0o600); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	m, err := New(1 << 20)
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	size := uint64(len(content))
	for _, c := range []struct {
		gpa, n uint64
		off    int64
		want   error
	}{
		{0, size, 0, nil},
		{0x4321, size - 55, 55, nil}, // neither begins at a page
		{1<<20 - size, size, 0, nil},
		{0x8000, 0, 0, nil},
		{0x8000, size + 1, 0, io.ErrUnexpectedEOF},
		{0x8000, 1, int64(size), io.ErrUnexpectedEOF},
		{1<<20 - size + 1, size, 0, qverr.EPTViolation},
	} {
		// What is around it stays, and the mapping sees what was written past it.
		if err := m.Zero(0, 1<<20); err != nil {
			t.Fatal(err)
		}
		err := m.Fill(c.gpa, c.n, f, c.off)
		if !errors.Is(err, c.want) {
			t.Errorf("%+v: %v", c, err)
		}
		if err != nil {
			continue
		}
		want := make([]byte, 1<<20)
		copy(want[c.gpa:], content[c.off:][:c.n])
		if all, err := m.Slice(0, 1<<20); err != nil || !bytes.Equal(all, want) {
			t.Errorf("%+v: other bytes (%v)", c, err)
		}
	}
	// A pipe cannot be sent from an offset, and cannot be read at one either.
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	w.Close()
	if err := m.Fill(0, 1, r, 0); !errors.Is(err, qverr.IO) {
		t.Errorf("of a pipe: %v", err)
	}
}
