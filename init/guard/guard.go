// Package guard keeps a panic in one goroutine from ending PID 1, and with it
// the machine.
package guard

import (
	"context"
	"fmt"
	"log/slog"
	"runtime/debug"
	"time"

	"quantavirt/internal/qverr"
)

// pause is between a panic and the next try of a loop.
const pause = time.Second

// Run calls fn and returns its panic, if any, as an error that is also logged
// with its stack.
func Run(log *slog.Logger, name string, fn func()) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = qverr.New(qverr.Generic, "%s panicked: %v", name, p)
			log.Error("recovered", "err", err, "stack", string(debug.Stack()))
		}
	}()
	fn()
	return nil
}

// Call calls fn and makes a panic an error that names its place.
func Call(name string, fn func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = qverr.New(qverr.Generic, "%s panicked: %v\n%s", name, p, debug.Stack())
		}
	}()
	return fn()
}

// Go runs fn in a goroutine that cannot end the process by a panic.
func Go(log *slog.Logger, name string, fn func()) {
	go func() { _ = Run(log, name, fn) }()
}

// Loop runs fn in a goroutine, and again after a panic, until it returns by
// itself or ctx ends.
func Loop(ctx context.Context, log *slog.Logger, name string, fn func(context.Context)) {
	go func() {
		for Run(log, name, func() { fn(ctx) }) != nil {
			select {
			case <-ctx.Done():
				return
			case <-time.After(pause):
				log.Warn(fmt.Sprintf("%s is started again", name))
			}
		}
	}()
}
