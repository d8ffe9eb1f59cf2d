// Package logring keeps the last lines written to it in memory.
package logring

import (
	"bytes"
	"io"
	"sync"
)

// Ring is an io.Writer that remembers whole lines up to a number of bytes. The
// zero value is of no use; see New.
type Ring struct {
	mu      sync.Mutex
	buf     []byte
	start   int // of the oldest byte
	used    int
	partial []byte
	tee     func(line []byte)
}

// maxLine bounds a line; a longer one is cut into several.
const maxLine = 4096

// New makes a ring of size bytes.
func New(size int) *Ring { return &Ring{buf: make([]byte, size)} }

// Tee also gives every further line, with its newline, to fn, which must not
// block. nil ends that.
func (r *Ring) Tee(fn func(line []byte)) {
	r.mu.Lock()
	defer r.mu.Unlock()
	r.tee = fn
}

// Write never fails.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	n := len(p)
	for len(p) > 0 {
		i := bytes.IndexByte(p, '\n')
		end := i + 1
		if i < 0 {
			end = len(p)
		}
		end = min(end, maxLine-len(r.partial))
		r.partial = append(r.partial, p[:end]...)
		p = p[end:]
		if last := len(r.partial) - 1; r.partial[last] == '\n' {
			r.line(r.partial)
		} else if len(r.partial) == maxLine {
			r.line(append(r.partial, '\n'))
		} else {
			continue
		}
		r.partial = r.partial[:0]
	}
	return n, nil
}

func (r *Ring) line(line []byte) {
	if r.tee != nil {
		r.tee(line)
	}
	if len(line) > len(r.buf) {
		line = line[len(line)-len(r.buf):]
	}
	for r.used+len(line) > len(r.buf) {
		r.dropLine()
	}
	at := (r.start + r.used) % len(r.buf)
	n := copy(r.buf[at:], line)
	copy(r.buf, line[n:])
	r.used += len(line)
}

func (r *Ring) dropLine() {
	for r.used > 0 {
		c := r.buf[r.start]
		r.start = (r.start + 1) % len(r.buf)
		r.used--
		if c == '\n' {
			return
		}
	}
}

// Bytes returns all remembered lines, oldest first.
func (r *Ring) Bytes() []byte {
	r.mu.Lock()
	defer r.mu.Unlock()
	out := make([]byte, 0, r.used+len(r.partial))
	first := min(r.used, len(r.buf)-r.start)
	out = append(out, r.buf[r.start:r.start+first]...)
	out = append(out, r.buf[:r.used-first]...)
	return append(out, r.partial...)
}

// Tail returns the last n lines.
func (r *Ring) Tail(n int) []byte {
	all := r.Bytes()
	at := len(bytes.TrimSuffix(all, []byte("\n")))
	for ; n > 0; n-- {
		if at = bytes.LastIndexByte(all[:at], '\n'); at < 0 {
			return all
		}
	}
	return all[at+1:]
}

var _ io.Writer = (*Ring)(nil)
