package demo

import (
	"bytes"
	"fmt"
	"io"
	"sync"
	"time"
)

// Steps prints what is being done and how long it took; a step that takes
// longer shows every few seconds that it still goes on.
type Steps struct {
	Out io.Writer
}

const aliveEvery = 3 * time.Second

// Do runs one step. What f writes is kept and its last line shown while the
// step goes on.
func (s *Steps) Do(name string, f func(progress io.Writer) error) error {
	fmt.Fprintf(s.Out, "==> %s\n", name)
	started := time.Now()
	last := &lastLine{}
	done := make(chan struct{})
	var alive sync.WaitGroup
	alive.Go(func() {
		tick := time.NewTicker(aliveEvery)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(s.Out, "    %3.0f s  %s\n", time.Since(started).Seconds(), last.String())
			}
		}
	})
	err := f(last)
	close(done)
	alive.Wait()
	if err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	fmt.Fprintf(s.Out, "    done in %.1f s\n", time.Since(started).Seconds())
	return nil
}

// lastLine keeps the last line that was written.
type lastLine struct {
	mu   sync.Mutex
	part []byte
	line string
}

func (l *lastLine) Write(p []byte) (int, error) {
	l.mu.Lock()
	defer l.mu.Unlock()
	l.part = append(l.part, p...)
	for {
		i := bytes.IndexAny(l.part, "\r\n")
		if i < 0 {
			return len(p), nil
		}
		if line := bytes.TrimSpace(l.part[:i]); len(line) > 0 {
			l.line = string(line)
		}
		l.part = l.part[i+1:]
	}
}

func (l *lastLine) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	if len(l.line) > 100 {
		return l.line[:100]
	}
	return l.line
}
