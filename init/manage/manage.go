// Package manage decides which program manages the node: the daemon, or the
// rescue listener in its place while the daemon cannot start.
//
// The daemon cannot start when Tries of its processes in a row, all within
// Window, end without having been ready for Lived, or when one has not become
// ready within StartLimit. The rescue listener then serves until somebody asks for the
// daemon, or nobody has used it for a while; it ends with status 0 and the daemon
// has RescueTries before the listener comes back.
package manage

import (
	"fmt"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/initapi/wire"
)

const (
	// Tries daemons that end within Window without having lived are enough.
	Tries  = 5
	Window = 2 * time.Minute
	// Lived is how long a daemon must have been ready to count as one that could
	// start: what kills it may come with its first work.
	Lived = 10 * time.Second
	// RescueTries is what the daemon has while it has not been ready since the
	// last rescue, and the listener too before the daemon is tried once more.
	RescueTries = 2
	// StartLimit is how long a daemon has to become ready.
	StartLimit = 3 * time.Minute
	// FirstRetry is how long the listener is unused before the daemon is tried
	// again; it doubles with each rescue up to LastRetry.
	FirstRetry = 5 * time.Minute
	LastRetry  = time.Hour
)

// Program manages the node.
type Program int

// Programs.
const (
	Daemon Program = iota
	Rescue
)

// Manager decides. The zero value begins with the daemon; its methods may be
// called from any goroutine. Times are since the start of the kernel.
type Manager struct {
	mu      sync.Mutex
	program Program
	started time.Duration   // of the program, 0 while none runs
	ready   time.Duration   // the daemon that runs, or ran last, is since then; 0: never
	late    bool            // it was not, and has used up its time
	ends    []time.Duration // of daemons in a row that did not live
	failed  int             // rescue listeners in a row that failed
	rescues int             // since a daemon last lived
	daemons int             // started so far
	last    *wire.Rescue
}

// Start is what to start at a time.
func (m *Manager) Start(now time.Duration) Program {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = now
	if m.program == Daemon {
		m.daemons++
		m.ready, m.late = 0, false
	}
	return m.program
}

// Ready says that the daemon serves, from now on.
func (m *Manager) Ready(now time.Duration) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.program != Daemon {
		return
	}
	if m.ready == 0 {
		m.ready = now
	}
	if m.last != nil {
		m.last.Active = false
	}
}

// Late says that the daemon has used up its time to become ready: it is to be
// killed.
func (m *Manager) Late(now time.Duration) bool {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.late = m.program == Daemon && m.started > 0 && m.ready == 0 && now-m.started >= StartLimit
	return m.late
}

// Ended takes in how the program ended; words are what a daemon said last. It
// returns the next program, and whether that is another one.
func (m *Manager) Ended(e wire.Exit, words string, now time.Duration) (next Program, changed bool) {
	m.mu.Lock()
	defer m.mu.Unlock()
	m.started = 0
	if m.program == Rescue {
		changed = m.rescueEnded(e)
	} else {
		changed = m.daemonEnded(e, words, now)
	}
	return m.program, changed
}

func (m *Manager) daemonEnded(e wire.Exit, words string, now time.Duration) bool {
	switch {
	case m.ready > 0 && now-m.ready >= Lived:
		m.ends, m.rescues = nil, 0
		return false
	case m.ready > 0 && e.Status == 0 && e.Signal == 0:
		return false // it was asked to end
	}
	m.ends = append(m.ends, now)
	tries := Tries
	if m.rescues > 0 {
		tries = RescueTries
	}
	if n := len(m.ends) - tries; n > 0 {
		m.ends = m.ends[n:]
	}
	why := ""
	switch {
	case m.late:
		why = fmt.Sprintf("the daemon was not ready %s after its start and was killed", StartLimit)
	case len(m.ends) == tries && now-m.ends[0] <= Window:
		why = fmt.Sprintf("the daemon has ended %d times without having been ready for %s, last with %s", tries, Lived, how(e))
	default:
		return false
	}
	if words != "" {
		why += "; its last words: " + words
	}
	retry := LastRetry
	if m.rescues < 4 {
		retry = FirstRetry << m.rescues
	}
	m.rescues++
	m.program, m.ends, m.failed = Rescue, nil, 0
	m.last = &wire.Rescue{Active: true, Reason: why, Since: e.Time, RetrySeconds: int(retry.Seconds())}
	return true
}

// rescueEnded: status 0 is the listener's way to ask for the daemon.
func (m *Manager) rescueEnded(e wire.Exit) bool {
	if e.Status == 0 {
		m.program = Daemon
		return true
	}
	if m.failed++; m.failed < RescueTries {
		return false
	}
	m.program = Daemon
	return true
}

// Rescue is the last rescue of this boot, nil if there was none.
func (m *Manager) Rescue() *wire.Rescue {
	m.mu.Lock()
	defer m.mu.Unlock()
	if m.last == nil {
		return nil
	}
	last := *m.last
	return &last
}

// Restarts is how often the daemon had to be started again.
func (m *Manager) Restarts() int {
	m.mu.Lock()
	defer m.mu.Unlock()
	return max(m.daemons-1, 0)
}

func how(e wire.Exit) string {
	if e.Signal != 0 {
		return "signal " + unix.SignalName(unix.Signal(e.Signal))
	}
	return fmt.Sprintf("status %d", e.Status)
}
