package manage

import (
	"bytes"
	"strings"
	"sync"
)

// maxWords bounds a line, in bytes.
const maxWords = 1024

// Words is an io.Writer that remembers the line that says best why a program
// ended: that of a panic or an error, else the last. The zero value is ready.
type Words struct {
	mu      sync.Mutex
	partial []byte
	line    string
	telling bool // line is one that tells
}

// telling is how lines begin after which only a trace comes.
var telling = []string{"panic: ", "fatal error: ", "SIG", "Error: "}

// Write never fails.
func (w *Words) Write(p []byte) (int, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	for rest := p; len(rest) > 0; {
		line, after, whole := bytes.Cut(rest, []byte{'\n'})
		w.partial = append(w.partial, line[:min(len(line), maxWords-len(w.partial))]...)
		if whole {
			w.take(strings.TrimSpace(string(w.partial)))
			w.partial = w.partial[:0]
		}
		rest = after
	}
	return len(p), nil
}

func (w *Words) take(line string) {
	if line == "" || w.telling {
		return
	}
	w.line = line
	for _, t := range telling {
		w.telling = w.telling || strings.HasPrefix(line, t)
	}
}

// Forget makes room for the words of the next program.
func (w *Words) Forget() {
	w.mu.Lock()
	defer w.mu.Unlock()
	w.partial, w.line, w.telling = w.partial[:0], "", false
}

// String is that line.
func (w *Words) String() string {
	w.mu.Lock()
	defer w.mu.Unlock()
	return w.line
}
