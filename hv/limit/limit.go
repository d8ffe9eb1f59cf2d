package limit

import (
	"math/bits"
	"sync/atomic"
	"time"

	"quantavirt/internal/qverr"
)

// Rate is what one bucket gives.
type Rate struct {
	// PerSecond is how much flows in; 0 means without a limit.
	PerSecond uint64 `json:"per_second"`
	// Burst is how much passes at once after a quiet time; 0 means a tenth of a
	// second's worth, and at least 1.
	Burst uint64 `json:"burst,omitempty"`
}

// Limits are those of one device. The zero value limits nothing.
type Limits struct {
	Operations Rate `json:"operations,omitzero"`
	Bytes      Rate `json:"bytes,omitzero"`
}

// MaxPerSecond and MaxBurst bound a Rate: neither a device nor the arithmetic goes
// further.
const (
	MaxPerSecond = 1 << 40
	MaxBurst     = 1 << 44
)

// maxDebt is how long a single request can hold up those behind it.
const maxDebt = time.Hour

// Validate refuses what is out of range, with QV_ERR_INVAL.
func (l Limits) Validate() error {
	for _, r := range []struct {
		name string
		Rate
	}{{"operations", l.Operations}, {"bytes", l.Bytes}} {
		if r.PerSecond > MaxPerSecond || r.Burst > MaxBurst {
			return qverr.New(qverr.Inval, "limit of %s: %d per second with a burst of %d: up to %d and %d are possible",
				r.name, r.PerSecond, r.Burst, uint64(MaxPerSecond), uint64(MaxBurst)).With("path", r.name)
		}
		if r.PerSecond == 0 && r.Burst != 0 {
			return qverr.New(qverr.Inval, "limit of %s: a burst of %d needs a rate", r.name, r.Burst).With("path", r.name)
		}
	}
	return nil
}

func (r Rate) burst() uint64 {
	if r.Burst != 0 {
		return r.Burst
	}
	return max(1, r.PerSecond/10)
}

// cost is the time in which n tokens flow in.
func (r Rate) cost(n uint64) time.Duration {
	hi, lo := bits.Mul64(n, uint64(time.Second))
	if hi >= r.PerSecond {
		return maxDebt
	}
	ns, _ := bits.Div64(hi, lo, r.PerSecond)
	return time.Duration(min(ns, uint64(maxDebt)))
}

// bucket is one token bucket. full is when it will be full, in nanoseconds since the
// limiter's epoch: what is missing from it is what flows in until then.
type bucket struct {
	rate  Rate
	burst time.Duration // the time in which an empty bucket fills
	full  atomic.Int64
}

// take charges n tokens at now and returns how long the request has to wait: until
// the bucket is not in debt from those before it.
func (b *bucket) take(n uint64, now int64) time.Duration {
	cost := int64(b.rate.cost(n))
	for {
		full := b.full.Load()
		// The sum stays far below the largest integer: debts are in hours.
		if b.full.CompareAndSwap(full, max(full, now)+cost) {
			return max(0, time.Duration(full-now)-b.burst)
		}
	}
}

// buckets are those of one setting; nil is no limit.
type buckets struct {
	limits     Limits
	ops, bytes *bucket
}

// Limiter applies Limits to one device. Its methods may be called from any
// goroutine.
type Limiter struct {
	epoch   time.Time
	current atomic.Pointer[buckets] // nil: nothing is limited
}

// New makes a limiter with full buckets.
func New(l Limits) *Limiter {
	lim := &Limiter{epoch: time.Now()}
	lim.Set(l)
	return lim
}

// Limits is what was set last.
func (l *Limiter) Limits() Limits {
	if b := l.current.Load(); b != nil {
		return b.limits
	}
	return Limits{}
}

// Take charges one operation that moves n bytes, and returns how long it has to
// wait before it may begin: usually 0.
func (l *Limiter) Take(n uint64) time.Duration {
	b := l.current.Load()
	if b == nil {
		return 0
	}
	now := int64(time.Since(l.epoch))
	var wait time.Duration
	if b.ops != nil {
		wait = b.ops.take(1, now)
	}
	if b.bytes != nil && n > 0 {
		wait = max(wait, b.bytes.take(n, now))
	}
	return wait
}

// Set changes the limits. What was used of the old buckets is used of the new ones.
// The caller wakes who waits: a request that was told to wait may begin at once.
func (l *Limiter) Set(limits Limits) {
	if limits == (Limits{}) {
		l.current.Store(nil)
		return
	}
	old := l.current.Load()
	if old == nil {
		old = &buckets{}
	}
	now := int64(time.Since(l.epoch))
	l.current.Store(&buckets{limits, remake(old.ops, limits.Operations, now), remake(old.bytes, limits.Bytes, now)})
}

// remake makes the bucket for a rate, missing what is missing from old; nil for no limit.
func remake(old *bucket, r Rate, now int64) *bucket {
	if r.PerSecond == 0 {
		return nil
	}
	b := &bucket{rate: r, burst: r.cost(r.burst())}
	b.full.Store(now)
	if old == nil {
		return b
	}
	if missing := old.full.Load() - now; missing > 0 {
		hi, lo := bits.Mul64(uint64(missing), old.rate.PerSecond)
		tokens, _ := bits.Div64(hi, lo, uint64(time.Second))
		b.full.Store(now + int64(r.cost(tokens)))
	}
	return b
}
