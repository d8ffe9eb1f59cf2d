// Package quiet does work that may wait, with the lowest priority of the
// kernel's scheduler: it takes the time that nothing else wants.
package quiet

import (
	"runtime"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
)

// lowest is the nice value with the least weight, one seventieth of the default
// (sched(7)).
const lowest = 19

// Do calls fn on a thread of its own and returns its error; a panic becomes one
// that names what. Goroutines that fn starts are not quiet.
func Do(what string, fn func() error) error {
	end := make(chan error, 1)
	go func() {
		// Never unlocked: the thread ends with the goroutine, as its priority
		// could be raised again only by a privileged process.
		runtime.LockOSThread()
		_ = unix.Setpriority(unix.PRIO_PROCESS, 0, lowest) // 0 is this thread
		end <- guard.Call(what, fn)
	}()
	return <-end
}
