package image

import (
	"fmt"
	"io"
	"sync"
	"time"
)

// beat is how often a step that takes long says that it goes on.
const beat = 4 * time.Second

// steps prints what is being done and how long it took.
type steps struct {
	out io.Writer
}

// do runs one step.
func (s steps) do(title string, f func() error) error {
	started := time.Now()
	fmt.Fprintf(s.out, "  %s\n", title)
	done := make(chan struct{})
	var wait sync.WaitGroup
	wait.Go(func() {
		tick := time.NewTicker(beat)
		defer tick.Stop()
		for {
			select {
			case <-done:
				return
			case <-tick.C:
				fmt.Fprintf(s.out, "    … %.0f s\n", time.Since(started).Seconds())
			}
		}
	})
	err := f()
	close(done)
	wait.Wait()
	if took := time.Since(started); err == nil && took > 100*time.Millisecond {
		fmt.Fprintf(s.out, "    %.1f s\n", took.Seconds())
	}
	return err
}
