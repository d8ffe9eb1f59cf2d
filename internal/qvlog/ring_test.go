package qvlog

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/qverr"
)

func openRing(t *testing.T, limit int64) (*Ring, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "logs", "node.log")
	r, err := OpenRing(path, limit)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { r.Close() })
	return r, path
}

func messages(recs []Record) string {
	var b strings.Builder
	for _, r := range recs {
		b.WriteString(r.Message + " ")
	}
	return strings.TrimSpace(b.String())
}

func diskUse(t *testing.T, path string) int64 {
	t.Helper()
	var sum int64
	for _, p := range []string{path, path + ".1"} {
		if st, err := os.Stat(p); err == nil {
			sum += st.Size()
		}
	}
	return sum
}

func TestRingIsBoundedAndKeepsTheNewest(t *testing.T) {
	ring, path := openRing(t, 8192)
	log := New(nil, Options{Ring: ring})
	const n = 500
	for i := range n {
		log.Info(fmt.Sprintf("m%03d", i))
		if use := diskUse(t, path); use > 8192 {
			t.Fatalf("after %d events: %d bytes", i, use)
		}
	}
	recs, err := Read(path, Filter{})
	if err != nil {
		t.Fatal(err)
	}
	if len(recs) < 30 {
		t.Errorf("only %d records kept", len(recs))
	}
	for i, r := range recs {
		if want := fmt.Sprintf("m%03d", n-len(recs)+i); r.Message != want {
			t.Fatalf("record %d is %s, want %s", i, r.Message, want)
		}
	}
	if _, err := ring.Write(make([]byte, 5000)); !errors.Is(err, qverr.Inval) {
		t.Errorf("a line above half of the limit: %v", err)
	}
}

func TestRingSurvivesPowerCut(t *testing.T) {
	for name, tail := range map[string]string{
		"whole":     "",
		"half line": `{"time":"2026-01-15T14:3`,
		"nuls":      strings.Repeat("\x00", 100_000),
	} {
		t.Run(name, func(t *testing.T) {
			ring, path := openRing(t, 1<<20)
			New(nil, Options{Ring: ring}).Info("before")
			if err := ring.Close(); err != nil {
				t.Fatal(err)
			}
			f, err := os.OpenFile(path, os.O_WRONLY|os.O_APPEND, 0)
			if err != nil {
				t.Fatal(err)
			}
			if _, err := f.WriteString(tail); err != nil {
				t.Fatal(err)
			}
			f.Close()
			if recs, err := Read(path, Filter{}); err != nil || messages(recs) != "before" {
				t.Errorf("read before repair: %v, %v", recs, err)
			}
			again, err := OpenRing(path, 1<<20)
			if err != nil {
				t.Fatal(err)
			}
			defer again.Close()
			New(nil, Options{Ring: again}).Info("after")
			if recs, err := Read(path, Filter{}); err != nil || messages(recs) != "before after" {
				t.Errorf("read: %v, %v", messages(recs), err)
			}
		})
	}
	t.Run("between rename and new file", func(t *testing.T) {
		ring, path := openRing(t, 1<<20)
		New(nil, Options{Ring: ring}).Info("before")
		ring.Close()
		if err := os.Rename(path, path+".1"); err != nil {
			t.Fatal(err)
		}
		if recs, err := Read(path, Filter{}); err != nil || messages(recs) != "before" {
			t.Errorf("read: %v, %v", recs, err)
		}
	})
	t.Run("garbage only", func(t *testing.T) {
		path := filepath.Join(t.TempDir(), "node.log")
		if err := os.WriteFile(path, []byte("\x00\xffnot a log"), 0o600); err != nil {
			t.Fatal(err)
		}
		ring, err := OpenRing(path, 1<<20)
		if err != nil {
			t.Fatal(err)
		}
		defer ring.Close()
		if use := diskUse(t, path); use != 0 {
			t.Errorf("%d bytes left", use)
		}
	})
}

func TestFilters(t *testing.T) {
	ring, path := openRing(t, 1<<20)
	start := time.Date(2026, 1, 15, 14, 0, 0, 0, time.UTC)
	for i, e := range []struct {
		level     slog.Level
		subsystem string
		err       error
		message   string
	}{
		{slog.LevelInfo, "vm", nil, "a"},
		{slog.LevelWarn, "pqc", qverr.PQCQRNG, "b"},
		{slog.LevelError, "storage", qverr.StrLock, "c"},
		{slog.LevelDebug, "vm", nil, "d"},
	} {
		r := slog.NewRecord(start.Add(time.Duration(i)*time.Hour), e.level, e.message, 0)
		r.AddAttrs(slog.String("subsystem", e.subsystem))
		if e.err != nil {
			r.AddAttrs(slog.Any("err", e.err))
		}
		h := New(nil, Options{Ring: ring, Level: slog.LevelDebug}).Handler()
		if err := h.Handle(context.Background(), r); err != nil {
			t.Fatal(err)
		}
	}
	for name, c := range map[string]struct {
		f    Filter
		want string
	}{
		"all":       {Filter{}, "abcd"},
		"level":     {Filter{Level: slog.LevelWarn}, "bc"},
		"since":     {Filter{Since: start.Add(2 * time.Hour)}, "cd"},
		"grep code": {Filter{Grep: regexp.MustCompile(`PQC_ERR|\(-402\)`)}, "bc"},
		"subsystem": {Filter{Subsystem: "vm"}, "ad"},
		"limit":     {Filter{Limit: 1}, "d"},
		"both":      {Filter{Level: slog.LevelError, Since: start.Add(3 * time.Hour)}, ""},
	} {
		recs, err := Read(path, c.f)
		got := ""
		for _, r := range recs {
			got += r.Message[:1]
		}
		if err != nil || got != c.want {
			t.Errorf("%s: %q, %v, want %q", name, got, err, c.want)
		}
	}
	if recs, err := Read(filepath.Join(t.TempDir(), "none"), Filter{}); err != nil || len(recs) != 0 {
		t.Errorf("no ring: %v, %v", recs, err)
	}
}

func TestFollow(t *testing.T) {
	ring, _ := openRing(t, 16384)
	log := New(nil, Options{Ring: ring})
	log.Info("old")
	got := make(chan string)
	done := make(chan error, 1)
	ctx, cancel := context.WithTimeout(context.Background(), 30*time.Second)
	defer cancel()
	go func() {
		done <- ring.Follow(ctx, Filter{}, func(r Record) error { got <- r.Message; return nil })
	}()
	if m := <-got; m != "old" {
		t.Fatalf("first record %q", m)
	}
	// Enough to rotate the ring several times while the reader keeps up.
	for i := range 400 {
		want := fmt.Sprintf("new %d", i)
		log.Info(want)
		select {
		case m := <-got:
			if m != want {
				t.Fatalf("got %q, want %q", m, want)
			}
		case <-ctx.Done():
			t.Fatalf("%q did not arrive", want)
		}
	}
	ring.Close()
	if err := <-done; err != nil {
		t.Errorf("Follow after Close: %v", err)
	}
}

func FuzzRead(f *testing.F) {
	f.Add([]byte(`{"time":"2026-01-15T14:32:01Z","level":"INFO","message":"x"}` + "\n"))
	f.Add([]byte("\x00\n{}\n{\"level\":3}\n"))
	f.Fuzz(func(t *testing.T, data []byte) {
		path := filepath.Join(t.TempDir(), "node.log")
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
		recs, err := Read(path, Filter{Level: slog.LevelDebug})
		if err != nil {
			t.Fatal(err)
		}
		for _, r := range recs {
			if strings.ContainsAny(r.Text(), "\n\x00") {
				t.Errorf("text has control characters: %q", r.Text())
			}
		}
	})
}
