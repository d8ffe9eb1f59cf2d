package tools

import (
	"bytes"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"
)

// quiet is how long a run may say nothing before the watch says how far it is.
const quiet = 4 * time.Second

// watch passes the lines of mmdebstrap on, with the time that has passed, and
// fills its silence with the size of what it has downloaded or unpacked.
type watch struct {
	out     io.Writer
	dir     string // of the root
	started time.Time
	done    chan struct{}
	wait    sync.WaitGroup

	mu      sync.Mutex
	last    time.Time
	partial []byte
	lines   []string
}

func newWatch(out io.Writer, dir string) *watch {
	now := time.Now()
	w := &watch{out: out, dir: dir, started: now, last: now, done: make(chan struct{})}
	w.wait.Go(w.fill)
	return w
}

// Write implements io.Writer for the output of mmdebstrap.
func (w *watch) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial = append(w.partial, p...)
	for {
		i := bytes.IndexAny(w.partial, "\r\n")
		if i < 0 {
			return len(p), nil
		}
		line := strings.TrimSpace(string(w.partial[:i]))
		w.partial = w.partial[i+1:]
		w.line(line)
	}
}

func (w *watch) line(line string) {
	// Chrootless is dangerous for root only where maintainer scripts run; the
	// text of a hook has nothing to say.
	if line == "" || strings.Contains(line, "chrootless mode as root") || strings.Contains(line, "-hook in shell") {
		return
	}
	w.lines = append(w.lines, line)
	w.say(strings.TrimPrefix(line, "I: "))
}

func (w *watch) say(text string) {
	w.last = time.Now()
	fmt.Fprintf(w.out, "  %s (%s)\n", text, since(w.started))
}

func (w *watch) fill() {
	tick := time.NewTicker(quiet / 4)
	defer tick.Stop()
	for {
		select {
		case <-w.done:
			return
		case <-tick.C:
		}
		w.mu.Lock()
		if time.Since(w.last) >= quiet {
			w.say(fmt.Sprintf("… %d MiB so far", size(w.dir)>>20))
		}
		w.mu.Unlock()
	}
}

func (w *watch) stop() {
	close(w.done)
	w.wait.Wait()
}

// tail returns the last lines, for an error.
func (w *watch) tail() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return strings.Join(w.lines[max(0, len(w.lines)-12):], "\n")
}

// size adds up the files of a directory and of those below. It may change meanwhile.
func size(dir string) (sum int64) {
	_ = filepath.WalkDir(dir, func(_ string, d os.DirEntry, err error) error {
		if err != nil || d.IsDir() {
			return nil
		}
		if info, err := d.Info(); err == nil {
			sum += info.Size()
		}
		return nil
	})
	return sum
}
