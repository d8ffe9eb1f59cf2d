package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"
)

// A disk of sectors; damage comes before it is read again.
func TestJournal(t *testing.T) {
	for _, c := range []struct {
		name   string
		damage func(sectors []byte)
		want   string // of check after the next start
	}{
		{"whole", func([]byte) {}, "records=10 starts=2 "},
		{"the last is gone", func(s []byte) { clear(s[9*recordSize : 10*recordSize]) }, "records=9 starts=2 "},
		{"one bit of the last", func(s []byte) { s[9*recordSize+100] ^= 1 }, "records=9 starts=2 "},
		{"one within is gone", func(s []byte) { clear(s[4*recordSize : 5*recordSize]) }, "record 5 is whole, and record 4 before it is not"},
		{"one twice", func(s []byte) { copy(s[4*recordSize:], s[3*recordSize:4*recordSize]) }, "record 5 is whole, and record 4 before it is not"},
	} {
		t.Run(c.name, func(t *testing.T) {
			path := filepath.Join(t.TempDir(), "disk")
			sectors := make([]byte, 64*recordSize)
			write(t, path, sectors)
			for start := range 2 {
				j := open(t, path, uint64(start+1))
				for range 5 {
					if err := j.append(); err != nil {
						t.Fatal(err)
					}
				}
			}
			sectors, err := os.ReadFile(path)
			if err != nil {
				t.Fatal(err)
			}
			c.damage(sectors)
			write(t, path, sectors)
			got, err := open(t, path, 3).check(nil)
			if err != nil {
				got = err.Error()
			}
			if !strings.HasPrefix(got, c.want) {
				t.Errorf("%s, want %s", got, c.want)
			}
		})
	}
}

func write(t *testing.T, path string, data []byte) {
	t.Helper()
	if err := os.WriteFile(path, data, 0o600); err != nil {
		t.Fatal(err)
	}
}

// open is startJournal without the clock.
func open(t *testing.T, path string, start uint64) *journal {
	t.Helper()
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	j := &journal{disk: f, start: start}
	if found, err := scan(f); err == nil {
		j.next = found.records
	}
	return j
}
