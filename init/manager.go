package main

import (
	"fmt"
	"strings"
	"syscall"

	"quantavirt/init/guard"
	"quantavirt/init/manage"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// turn is called at every turn of the supervisor.
func (n *node) turn() {
	n.pulse.Beat()
	if !n.manager.Late(sinceStart()) {
		return
	}
	if pid := n.daemon.PID(); pid != 0 {
		n.log.Error("the daemon does not become ready and is killed", "pid", pid, "limit", manage.StartLimit)
		if err := syscall.Kill(pid, syscall.SIGKILL); err != nil {
			n.log.Error("kill the daemon", "err", err)
		}
	}
}

// managerDied takes in the end of the daemon or the rescue listener.
func (n *node) managerDied(e wire.Exit, deaths int) {
	next, changed := n.manager.Ended(e, n.words.String(), sinceStart())
	switch {
	case changed && next == manage.Rescue:
		n.say(qverr.New(qverr.Generic, "%s", n.manager.Rescue().Reason))
		n.show("quantavirt: the rescue listener takes its place")
	case changed:
		n.log.Info("the daemon is tried again")
		if e.Status != 0 && n.Boot().Trial {
			why := qverr.New(qverr.Generic, "%s; the rescue listener does not live either", n.manager.Rescue().Reason)
			guard.Go(n.log, "trial", func() { n.giveUpTrial(why) })
		}
	case next == manage.Daemon:
		n.complain(e, deaths)
	}
}

// complain says on the consoles that the daemon cannot stay alive, with its
// last words, but not at every try.
func (n *node) complain(e wire.Exit, deaths int) {
	if deaths != complainFrom && deaths%20 != 0 {
		return
	}
	how := fmt.Sprintf("status %d", e.Status)
	if e.Signal != 0 {
		how = "signal " + syscall.Signal(e.Signal).String()
	}
	n.say(qverr.New(qverr.Generic, "the daemon has ended %d times in a row, last with %s; it is tried again. Its last words:", deaths, how))
	n.show(strings.TrimRight(string(n.ring.Tail(6)), "\n"))
}
