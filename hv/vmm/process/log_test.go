package process

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"golang.org/x/time/rate"
)

func TestBoundedLog(t *testing.T) {
	path := filepath.Join(t.TempDir(), "hv.log")
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_APPEND, 0o600)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	l := newBoundedLog(f)
	line := bytes.Repeat([]byte("x"), 99)
	line = append(line, '\n')
	const many = 10 * logBurst
	for range many {
		if n, err := l.Write(line); n != len(line) || err != nil {
			t.Fatal(n, err)
		}
	}
	data, err := os.ReadFile(path)
	if lines := bytes.Count(data, []byte("\n")); err != nil || lines < logBurst || lines > many/2 || l.dropped < many/2 {
		t.Errorf("%d lines are there, %d dropped (%v)", lines, l.dropped, err)
	}
	l.quota = rate.NewLimiter(1, 1<<20)
	for range 2 * logSize / len(line) {
		if _, err := l.Write(line); err != nil {
			t.Fatal(err)
		}
		if info, err := f.Stat(); err != nil || info.Size() > logSize {
			t.Fatalf("%d bytes (%v)", info.Size(), err)
		}
	}
	data, err = os.ReadFile(path)
	if err != nil || !bytes.HasPrefix(data, []byte("older lines were dropped: the log may have 1024 KiB\n")) || !bytes.HasSuffix(data, line) {
		t.Errorf("%v: %.200q", err, data)
	}
}

func TestBoundedLogTells(t *testing.T) {
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	defer r.Close()
	l := newBoundedLog(w)
	l.quota = rate.NewLimiter(1, 1)
	for _, line := range []string{"a\n", "b\n", "c\n"} {
		_, _ = l.Write([]byte(line))
	}
	l.quota = rate.NewLimiter(1, 1)
	_, _ = l.Write([]byte("d\n"))
	w.Close()
	var out bytes.Buffer
	if _, err := out.ReadFrom(r); err != nil || out.String() != "a\n2 lines were dropped: there are too many\nd\n" {
		t.Errorf("%q, %v", out.String(), err)
	}
}
