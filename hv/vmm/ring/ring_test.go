package ring

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"
	"testing/synctest"

	"golang.org/x/time/rate"

	"quantavirt/internal/qverr"
)

const testSize = 4096

func openRing(t *testing.T, path string) *Ring {
	t.Helper()
	f, err := Create(path, testSize)
	if err != nil {
		t.Fatal(err)
	}
	r, err := Open(f)
	if err != nil {
		t.Fatal(err)
	}
	return r
}

func TestKeepsTheLastBytes(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	var all []byte
	for run := range 4 { // each run is another process on the same file
		r := openRing(t, path)
		for i := range 60 * run {
			line := fmt.Appendf(nil, "run %d line %d\n", run, i)
			all = append(all, line...)
			if n, err := r.Write(line); n != len(line) || err != nil {
				t.Fatal(n, err)
			}
		}
		r.Close()
		want := all[max(0, len(all)-testSize):]
		got, err := Read(path)
		if err != nil || !bytes.Equal(got, want) {
			t.Fatalf("run %d: %d bytes, want %d (%v)", run, len(got), len(want), err)
		}
	}
}

func TestWriteLargerThanRing(t *testing.T) {
	path := filepath.Join(t.TempDir(), "console")
	r := openRing(t, path)
	data := bytes.Repeat([]byte("0123456789abcdef"), 20_000)
	if _, err := r.Write(data); err != nil {
		t.Fatal(err)
	}
	r.Close()
	got, err := Read(path)
	if err != nil || !bytes.Equal(got, data[len(data)-testSize:]) {
		t.Fatalf("%d bytes (%v)", len(got), err)
	}
}

func TestFollow(t *testing.T) {
	r := openRing(t, filepath.Join(t.TempDir(), "console"))
	_, _ = io.WriteString(r, "before ")
	var wg sync.WaitGroup
	results := make([]string, 3)
	for i := range results {
		f := r.Follow()
		wg.Go(func() {
			var b strings.Builder
			buf := make([]byte, 7)
			for {
				n, err := f.Read(t.Context(), buf)
				b.Write(buf[:n])
				if err != nil {
					if !errors.Is(err, io.EOF) {
						t.Error(err)
					}
					results[i] = b.String()
					return
				}
			}
		})
	}
	for i := range 100 {
		fmt.Fprintf(r, "%d ", i)
	}
	r.Close()
	wg.Wait()
	for _, got := range results {
		if !strings.HasPrefix(got, "before 0 1 ") || !strings.HasSuffix(got, " 98 99 ") {
			t.Errorf("%q", got)
		}
	}
	if n, err := r.Write([]byte("after")); n != 5 || err != nil {
		t.Errorf("write after close: %d, %v", n, err)
	}
}

// slow is a store that takes bytes when it is told to.
type slow struct {
	memoryStore
	begun, proceed chan struct{}
}

func (s *slow) WriteAt(p []byte, off int64) (int, error) {
	if off >= headerSize {
		close(s.begun)
		<-s.proceed
	}
	return s.memoryStore.WriteAt(p, off)
}

// Bytes that are being written when the ring is closed are read, too.
func TestFollowToTheEnd(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s := &slow{begun: make(chan struct{}), proceed: make(chan struct{})}
		r := start(s, testSize, 0)
		f := r.Follow()
		_, _ = io.WriteString(r, "last")
		<-s.begun
		go r.Close()
		synctest.Wait()
		read := make(chan string)
		go func() {
			buf := make([]byte, 10)
			n, _ := f.Read(t.Context(), buf)
			read <- string(buf[:n])
		}()
		synctest.Wait()
		close(s.proceed)
		if got := <-read; got != "last" {
			t.Errorf("%q", got)
		}
	})
}

func TestSlowFollowerMissesOldBytes(t *testing.T) {
	r := NewMemory(testSize)
	f := r.Follow()
	for i := range 10_000 {
		fmt.Fprintf(r, "%06d\n", i)
	}
	r.Close()
	data, err := r.Snapshot()
	if err != nil || len(data) != testSize || !bytes.HasSuffix(data, []byte("009999\n")) {
		t.Fatalf("%d bytes (%v)", len(data), err)
	}
	buf := make([]byte, 10*testSize)
	n, err := f.Read(t.Context(), buf)
	if err != nil || !bytes.Equal(buf[:n], data) {
		t.Fatalf("%d bytes (%v)", n, err)
	}
}

func TestFollowEndsWithContext(t *testing.T) {
	r := NewMemory(testSize)
	defer r.Close()
	ctx, cancel := context.WithCancel(t.Context())
	cancel()
	if _, err := r.Follow().Read(ctx, make([]byte, 1)); !errors.Is(err, context.Canceled) {
		t.Fatal(err)
	}
}

type failing struct{ memoryStore }

func (*failing) WriteAt([]byte, int64) (int, error) { return 0, io.ErrShortWrite }

func TestBrokenFileStopsNobody(t *testing.T) {
	r := start(&failing{}, testSize, 0)
	for range 10 {
		if _, err := r.Write(make([]byte, maxPending)); err != nil {
			t.Fatal(err)
		}
	}
	r.Close()
}

func TestCreate(t *testing.T) {
	dir := t.TempDir()
	path := filepath.Join(dir, "console")
	for name, content := range map[string][]byte{
		"empty":    {},
		"garbage":  bytes.Repeat([]byte{7}, 1000),
		"bad size": append([]byte(magic), bytes.Repeat([]byte{0xff}, 100)...),
	} {
		if err := os.WriteFile(path, content, 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := Read(path); err == nil {
			t.Errorf("%s: was read", name)
		}
		f, err := Create(path, testSize)
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		f.Close()
		if data, err := Read(path); err != nil || len(data) != 0 {
			t.Errorf("%s: %q, %v", name, data, err)
		}
	}
	if _, err := Create(path, 100); !errors.Is(err, qverr.Inval) {
		t.Errorf("small ring: %v", err)
	}
	if _, err := Create(filepath.Join(dir, "no", "dir"), testSize); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("no directory: %v", err)
	}
	if _, err := Read(filepath.Join(dir, "none")); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("no file: %v", err)
	}
}

// TestQuota prints more than a guest may.
func TestQuota(t *testing.T) {
	r := NewMemory(64 << 20)
	defer r.Close()
	line := []byte("0123456789abcdef")
	const total = 3 * Burst
	for range total / len(line) {
		_, _ = r.Write(line)
	}
	// Some time passes while this prints: at most a burst and what flowed in.
	if kept := total - r.Dropped(); kept < Burst || r.Dropped() < Burst {
		t.Fatalf("%d bytes were kept, %d dropped", kept, r.Dropped())
	}
	// One giant write is no way around.
	before := r.Dropped()
	_, _ = r.Write(make([]byte, 16<<20))
	if r.Dropped()-before < 8<<20 {
		t.Errorf("%d bytes of a giant write were dropped", r.Dropped()-before)
	}
	// When it may print again, it is told what was lost.
	r.mu.Lock()
	lost := r.unsaid
	r.quota, r.credit = rate.NewLimiter(1, Burst), 0
	r.mu.Unlock()
	_, _ = r.Write([]byte("again"))
	r.Close()
	data, err := r.Snapshot()
	want := fmt.Sprintf("\r\n[%d bytes were dropped: more than 1024 KiB a second]\r\nagain", lost)
	if err != nil || !bytes.HasSuffix(data, []byte(want)) || r.Written() != uint64(len(data)) {
		t.Errorf("%v: …%q, want …%q", err, data[max(0, len(data)-100):], want)
	}
}
