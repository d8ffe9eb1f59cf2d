// Package allowance bounds how much of something a guest may cause: so much at once,
// and so much a second. What goes beyond is for the caller to drop or to put off.
// Package limit, for devices, differs: there everything passes, late.
package allowance

import (
	"sync"
	"time"
)

// Allowance is a bucket of tokens. Its methods may be called from any goroutine.
type Allowance struct {
	perSecond, burst float64

	mu     sync.Mutex
	tokens float64
	last   time.Time
}

// New makes a full bucket of burst tokens, into which perSecond flow.
func New(perSecond, burst int) *Allowance {
	return &Allowance{perSecond: float64(perSecond), burst: float64(burst), tokens: float64(burst)}
}

// Take takes n tokens at now if there are so many.
func (a *Allowance) Take(n int, now time.Time) bool { return a.Delay(n, now) == 0 }

// Delay takes n tokens at now if there are so many, and returns 0; otherwise it takes
// none and returns how long until there will be. n must not exceed the burst.
func (a *Allowance) Delay(n int, now time.Time) time.Duration {
	a.mu.Lock()
	defer a.mu.Unlock()
	if passed := now.Sub(a.last).Seconds(); passed > 0 {
		a.tokens = min(a.burst, a.tokens+passed*a.perSecond)
		a.last = now
	}
	missing := float64(n) - a.tokens
	if missing <= 0 {
		a.tokens -= float64(n)
		return 0
	}
	return max(1, time.Duration(missing/a.perSecond*float64(time.Second)))
}
