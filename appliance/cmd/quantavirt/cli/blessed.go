package cli

import (
	"context"
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

const (
	// lookAgain is how often a node that goes through an update is asked.
	lookAgain = 2 * time.Second
	// comeBack is how long it may take over its limit: to go down, through its
	// firmware, and into the slot before.
	comeBack = 10 * time.Minute
	// usualLimit is the node's own, see --limit.
	usualLimit = 5 * time.Minute
)

// bootID names the node's boot.
func (a *app) bootID(ctx context.Context) (string, error) {
	ans, err := call[spec.SystemInfo](a, func(c *client) (*http.Response, error) { return c.GetSystemInfo(ctx) })
	return ans.value.BootID, err
}

// awaitBlessed waits until the update that a node went down for is decided: nil
// when the new system is blessed, or runs where there is nothing to bless.
// QV_ERR_STATE: it failed, and the one before runs. QV_ERR_TIMEOUT: the node
// did not come to an end in time.
func (a *app) awaitBlessed(ctx context.Context, before string, limit time.Duration) error {
	end := time.Now().Add(limit + comeBack)
	var last error
	for {
		now, err := a.bootID(ctx)
		if err == nil && now != before {
			var done bool
			if done, err = a.decided(ctx); done {
				return err
			}
		}
		if err != nil {
			last = err
		}
		if time.Now().After(end) {
			e := qverr.New(qverr.Timeout, "the update was not decided in %s", limit+comeBack)
			if last != nil {
				e = qverr.New(qverr.Timeout, "the update was not decided in %s: %w", limit+comeBack, last)
			}
			return e.WithHint("look at the node's console, and at quantavirt system slots once it answers")
		}
		select {
		case <-ctx.Done():
			return qverr.New(qverr.Generic, "no longer waiting; the node goes on").WithHint("see quantavirt system slots")
		case <-time.After(lookAgain):
		}
	}
}

// decided says whether the last update has ended, and how.
func (a *app) decided(ctx context.Context) (bool, error) {
	ans, err := call[spec.SlotList](a, func(c *client) (*http.Response, error) { return c.ListSlots(ctx) })
	if err != nil {
		return false, err
	}
	l := ans.value
	version := l.LastBundle.Version
	failed := func(reason string) (bool, error) {
		return true, qverr.New(qverr.State, "version %s failed: %s; the system before runs again", plain(version), plain(reason)).
			WithHint("see quantavirt system slots and quantavirt log")
	}
	for _, s := range l.Items { // newest first
		switch {
		case s.Version != version:
			continue
		case s.State == spec.SlotStateFailed && !s.Running:
			return failed(s.Reason)
		}
		return s.State == spec.SlotStateGood && s.Running, nil
	}
	for _, f := range l.Failures {
		if f.Version == version {
			return failed(f.Reason)
		}
	}
	return len(l.Items) == 0, nil // without slots it runs, or what boots the node decided
}
