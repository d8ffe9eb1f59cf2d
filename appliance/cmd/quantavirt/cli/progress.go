package cli

import (
	"fmt"
	"io"
	"strings"
	"sync"
	"time"
)

// bar shows how far something is, on stderr: a line that is drawn anew on a
// terminal, a line every tenth elsewhere. A nil bar shows nothing.
type bar struct {
	mu       sync.Mutex
	w        io.Writer
	live     bool
	label    string
	unit     string // "bytes" is shown as sizes
	start    time.Time
	drawn    time.Time
	width    int // of the line on the terminal
	tenth    int64
	lastText string
}

const redraw = 100 * time.Millisecond

func (a *app) newBar(label, unit string) *bar {
	if a.quiet {
		return nil
	}
	return &bar{w: a.Err, live: terminal(a.Err), label: label, unit: unit, start: time.Now(), tenth: -1}
}

// set shows done of total; total 0 means that it is not known.
func (b *bar) set(done, total int64, phase string) {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if !b.live {
		b.setLine(done, total, phase)
		return
	}
	if now := time.Now(); now.Sub(b.drawn) >= redraw || total > 0 && done == total {
		b.drawn = now
		b.draw(b.text(done, total, phase))
	}
}

func (b *bar) setLine(done, total int64, phase string) {
	if total > 0 {
		if phase != b.lastText { // it begins anew
			b.lastText, b.tenth = phase, -1
		}
		if tenth := done * 10 / total; tenth > b.tenth {
			b.tenth = tenth
			fmt.Fprintln(b.w, b.text(done, total, phase))
		}
		return
	}
	if phase != b.lastText {
		b.lastText = phase
		fmt.Fprintln(b.w, b.text(done, total, phase))
	}
}

func (b *bar) text(done, total int64, phase string) string {
	s := b.label
	if phase != "" {
		s += ": " + plain(phase)
	}
	if total <= 0 {
		return s
	}
	const cells = 24
	done = min(max(done, 0), total)
	full := int(float64(done) / float64(total) * cells)
	s += fmt.Sprintf(" [%s%s] %3d%%", strings.Repeat("=", full), strings.Repeat(" ", cells-full), int(float64(done)/float64(total)*100))
	if b.unit != "bytes" {
		return s + fmt.Sprintf("  %d/%d %s", done, total, b.unit)
	}
	s += fmt.Sprintf("  %s of %s", size(done), size(total))
	if dt := time.Since(b.start).Seconds(); dt > 0.2 && done > 0 {
		s += fmt.Sprintf("  %s/s", size(int64(float64(done)/dt)))
	}
	return s
}

func (b *bar) draw(s string) {
	pad := max(b.width-len(s), 0)
	b.width = len(s)
	fmt.Fprintf(b.w, "\r%s%s", s, strings.Repeat(" ", pad))
}

// end leaves the line: what follows on stderr begins on a new one.
func (b *bar) end() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.live && b.width > 0 {
		fmt.Fprintln(b.w)
		b.width = 0
	}
}

// counted reports what is read through it.
type counted struct {
	r     io.Reader
	bar   *bar
	done  int64
	total int64
}

func (c *counted) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.done += int64(n)
	c.bar.set(c.done, c.total, "")
	return n, err
}
