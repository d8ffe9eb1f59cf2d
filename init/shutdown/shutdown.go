// Package shutdown ends the node in order: a table of phases, each with its
// time. One that fails or hangs is left behind; the end is always reached.
package shutdown

import (
	"log/slog"
	"time"

	"quantavirt/init/guard"
	"quantavirt/internal/qverr"
)

// Phase is one part of the end.
type Phase struct {
	Name  string
	Limit time.Duration
	Run   func() error
}

// Run runs the phases in their order.
func Run(log *slog.Logger, phases []Phase) {
	for _, p := range phases {
		begin := time.Now()
		err := limited(log, p)
		took := time.Since(begin).Round(time.Millisecond)
		if err != nil {
			log.Error("shutdown: "+p.Name, "err", err, "took", took)
			continue
		}
		log.Info("shutdown: "+p.Name, "took", took)
	}
}

func limited(log *slog.Logger, p Phase) error {
	end := make(chan error, 1)
	go func() {
		var err error
		if panicked := guard.Run(log, p.Name, func() { err = p.Run() }); panicked != nil {
			err = panicked
		}
		end <- err
	}()
	select {
	case err := <-end:
		return err
	case <-time.After(p.Limit):
		return qverr.New(qverr.Timeout, "%s did not end within %v", p.Name, p.Limit)
	}
}

// Total is the longest time that the phases can take.
func Total(phases []Phase) time.Duration {
	var d time.Duration
	for _, p := range phases {
		d += p.Limit
	}
	return d
}
