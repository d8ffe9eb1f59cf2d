package main

import (
	"context"
	"os"
	"os/signal"
	"sync"

	"golang.org/x/sys/unix"
	"golang.org/x/term"

	"quantavirt/hv/vmm"
)

// followSize tells the guest the size of this terminal, now and when it changes, until
// stop is called.
func followSize(p *vmm.Process) (stop func()) {
	fd := int(os.Stdout.Fd())
	if !term.IsTerminal(fd) {
		return func() {}
	}
	changed := make(chan os.Signal, 1)
	signal.Notify(changed, unix.SIGWINCH)
	changed <- unix.SIGWINCH
	var wg sync.WaitGroup
	wg.Go(func() {
		for range changed {
			if columns, rows, err := term.GetSize(fd); err == nil {
				_ = p.Client().SetConsoleSize(context.Background(), vmm.ConsoleSize{Columns: uint16(columns), Rows: uint16(rows)})
			}
		}
	})
	return func() {
		signal.Stop(changed)
		close(changed)
		wg.Wait()
	}
}
