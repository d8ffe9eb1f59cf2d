package qvlog

import (
	"bufio"
	"context"
	"encoding/json"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"regexp"
	"time"
)

// Filter chooses records. The zero value takes all of them.
type Filter struct {
	Level     slog.Leveler   // lowest level, nil for all
	Since     time.Time      // not older than this, zero for all
	Grep      *regexp.Regexp // matches the text line, nil for all
	Subsystem string         // exactly this one, "" for all
	Limit     int            // the newest so many, 0 for all
}

func (f Filter) match(r Record) bool {
	if f.Level != nil {
		if l, err := ParseLevel(r.Level); err != nil || l < f.Level.Level() {
			return false
		}
	}
	if !f.Since.IsZero() && r.Time.Before(f.Since) {
		return false
	}
	if f.Subsystem != "" && r.Subsystem != f.Subsystem {
		return false
	}
	return f.Grep == nil || f.Grep.MatchString(r.Text())
}

// Read returns the matching records of the ring at path, oldest first. Lines
// that are no record (cut by a power failure) are skipped; a ring that does not
// exist is empty.
func Read(path string, f Filter) ([]Record, error) {
	var out []Record
	// The newer file is opened first: a rotation in between then repeats
	// lines, which the inode check drops, and never loses any.
	cur, err := openIfThere(path)
	if err != nil {
		return nil, ringError("read", path, err)
	}
	if cur != nil {
		defer cur.Close()
	}
	old, err := openIfThere(path + ".1")
	if err != nil {
		return nil, ringError("read", path, err)
	}
	if old != nil {
		defer old.Close()
		if cur == nil || !sameFile(cur, old) {
			if out, err = collect(out, old, f); err != nil {
				return nil, ringError("read", path, err)
			}
		}
	}
	if cur != nil {
		if out, err = collect(out, cur, f); err != nil {
			return nil, ringError("read", path, err)
		}
	}
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[len(out)-f.Limit:]
	}
	return out, nil
}

func openIfThere(path string) (*os.File, error) {
	file, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	return file, err
}

func sameFile(a, b *os.File) bool {
	ai, err1 := a.Stat()
	bi, err2 := b.Stat()
	return err1 == nil && err2 == nil && os.SameFile(ai, bi)
}

func collect(out []Record, r io.Reader, f Filter) ([]Record, error) {
	err := Each(r, func(rec Record) error {
		if !f.match(rec) {
			return nil
		}
		out = append(out, rec)
		// Keeps memory in proportion to the limit on a large ring.
		if f.Limit > 0 && len(out) >= 2*f.Limit {
			out = append(out[:0], out[len(out)-f.Limit:]...)
		}
		return nil
	})
	return out, err
}

// Each calls fn with the records of one file of a ring, until fn fails. Lines that are
// no record are skipped.
func Each(r io.Reader, fn func(Record) error) error {
	in := bufio.NewReaderSize(r, 64<<10)
	for {
		line, err := in.ReadBytes('\n')
		var rec Record
		if err == nil && json.Unmarshal(line, &rec) == nil && rec.Level != "" {
			if err := fn(rec); err != nil {
				return err
			}
		}
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
	}
}

// Follow calls fn with the matching records of the ring, then with new ones as
// they are written, until ctx ends, fn fails or the ring is closed.
func (r *Ring) Follow(ctx context.Context, f Filter, fn func(Record) error) error {
	cur, err := r.first(f, fn)
	if err != nil {
		return err
	}
	defer func() { cur.Close() }()
	for {
		changed := r.next()
		if err := drain(cur, f, fn); err != nil {
			return err
		}
		if now, err := os.Open(r.path); err == nil {
			if sameFile(cur, now) {
				now.Close()
			} else {
				// Lines written to the old file before it was replaced.
				err := drain(cur, f, fn)
				cur.Close()
				cur = now
				if err != nil {
					return err
				}
				continue
			}
		}
		if changed == nil {
			return nil
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-changed:
		}
	}
}

// first hands over what is in the ring now and returns its current file,
// positioned after that.
func (r *Ring) first(f Filter, fn func(Record) error) (*os.File, error) {
	r.mu.Lock()
	size := r.size
	cur, err := os.Open(r.path)
	var old *os.File
	if err == nil {
		old, err = openIfThere(r.path + ".1")
	}
	r.mu.Unlock()
	var recs []Record
	if old != nil {
		defer old.Close()
		if err == nil {
			recs, err = collect(nil, old, f)
		}
	}
	if err == nil {
		recs, err = collect(recs, io.NewSectionReader(cur, 0, size), f)
	}
	if err == nil {
		_, err = cur.Seek(size, io.SeekStart)
	}
	if err != nil {
		if cur != nil {
			cur.Close()
		}
		return nil, ringError("read", r.path, err)
	}
	if f.Limit > 0 && len(recs) > f.Limit {
		recs = recs[len(recs)-f.Limit:]
	}
	for _, rec := range recs {
		if err := fn(rec); err != nil {
			cur.Close()
			return nil, err
		}
	}
	return cur, nil
}

// drain hands over the complete lines from the file's position on.
func drain(file *os.File, f Filter, fn func(Record) error) error {
	f.Limit = 0
	pos, err := file.Seek(0, io.SeekCurrent)
	if err != nil {
		return err
	}
	in := bufio.NewReader(file)
	for {
		line, err := in.ReadBytes('\n')
		if err != nil { // io.EOF, perhaps within a line that is being written
			_, seekErr := file.Seek(pos, io.SeekStart)
			if errors.Is(err, io.EOF) {
				return seekErr
			}
			return err
		}
		pos += int64(len(line))
		var rec Record
		if json.Unmarshal(line, &rec) == nil && rec.Level != "" && f.match(rec) {
			if err := fn(rec); err != nil {
				return err
			}
		}
	}
}
