package limit_test

import (
	"errors"
	"sync"
	"testing"
	"testing/synctest"
	"time"

	"quantavirt/hv/limit"
	"quantavirt/internal/qverr"
)

func operations(perSecond, burst uint64) limit.Limits {
	return limit.Limits{Operations: limit.Rate{PerSecond: perSecond, Burst: burst}}
}

func bytes(perSecond, burst uint64) limit.Limits {
	return limit.Limits{Bytes: limit.Rate{PerSecond: perSecond, Burst: burst}}
}

// TestTake looks at the waits of a row of requests that all come at once.
func TestTake(t *testing.T) {
	const ms = time.Millisecond
	for _, tc := range []struct {
		name   string
		limits limit.Limits
		sizes  []uint64
		want   []time.Duration
	}{
		{"none", limit.Limits{}, []uint64{1 << 40, 1 << 40}, []time.Duration{0, 0}},
		{"burst of one", operations(100, 1), []uint64{0, 0, 0, 0}, []time.Duration{0, 0, 10 * ms, 20 * ms}},
		{"burst of three", operations(1000, 3), []uint64{0, 0, 0, 0, 0}, []time.Duration{0, 0, 0, 0, ms}},
		{"a tenth of a second by default", operations(20, 0), []uint64{0, 0, 0, 0}, []time.Duration{0, 0, 0, 50 * ms}},
		{"larger than the burst", bytes(1000, 10), []uint64{5000, 1, 1}, []time.Duration{0, 4990 * ms, 4991 * ms}},
		{"no bytes, no charge", bytes(1000, 1), []uint64{5000, 0, 0}, []time.Duration{0, 0, 0}},
		{"the later of both", limit.Limits{Operations: limit.Rate{PerSecond: 10, Burst: 1}, Bytes: limit.Rate{PerSecond: 1000, Burst: 1}},
			[]uint64{1, 1, 1000, 1}, []time.Duration{0, 0, 100 * ms, 1001 * ms}},
		{"faster than a nanosecond a byte", bytes(1<<40, 1<<40), []uint64{1 << 40, 1 << 40, 1 << 39}, []time.Duration{0, 0, time.Second}},
		{"debt is bounded", bytes(1, 1), []uint64{1 << 63, 1}, []time.Duration{0, time.Hour - time.Second}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				l := limit.New(tc.limits)
				for i, n := range tc.sizes {
					if got := l.Take(n); got != tc.want[i] {
						t.Errorf("request %d of %d bytes waits %v, not %v", i, n, got, tc.want[i])
					}
				}
			})
		})
	}
}

// TestRate has four queues do as they are told for a minute: the rate is that of
// the limit and the burst, to the request.
func TestRate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		const perSecond, burst, seconds = 250, 50, 60
		l := limit.New(operations(perSecond, burst))
		end := time.Now().Add(seconds * time.Second)
		var wg sync.WaitGroup
		var counts [4]int
		for i := range counts {
			wg.Go(func() {
				for {
					<-time.After(l.Take(4096))
					if !time.Now().Before(end) {
						return
					}
					counts[i]++
				}
			})
		}
		wg.Wait()
		total := 0
		for i, n := range counts {
			total += n
			// In the order in which they came: no queue starves another, but the
			// burst of the beginning may be had by one alone.
			if share := perSecond * seconds / len(counts); n < share-1 || n > share+burst+1 {
				t.Errorf("queue %d did %d requests: its share is %d", i, n, share)
			}
		}
		if want := perSecond*seconds + burst; total < want-1 || total > want+1 {
			t.Errorf("%d requests in %d s, want %d", total, seconds, want)
		}
	})
}

func TestRefill(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(operations(10, 5))
		for range 20 {
			l.Take(0)
		}
		time.Sleep(10 * time.Second) // full again, and not fuller
		for i, want := range []time.Duration{0, 0, 0, 0, 0, 0, 100 * time.Millisecond} {
			if got := l.Take(0); got != want {
				t.Errorf("request %d waits %v, not %v", i, got, want)
			}
		}
	})
}

func TestSet(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		l := limit.New(bytes(1000, 1000))
		l.Take(3000) // 2 s of debt
		if got := l.Take(0); got != 0 {
			t.Errorf("no bytes wait %v", got)
		}
		l.Set(bytes(4000, 1000))
		if got := l.Take(4000); got != 500*time.Millisecond {
			t.Errorf("debt at four times the rate: %v, not 500ms", got)
		}
		l.Set(limit.Limits{})
		if got := l.Take(1 << 40); got != 0 || l.Limits() != (limit.Limits{}) {
			t.Errorf("without limits: %v", got)
		}
		l.Set(bytes(1, 1))
		if got := l.Take(1); got != 0 || l.Limits() != bytes(1, 1) {
			t.Errorf("a new bucket is full, but a request waits %v", got)
		}
	})
}

func TestValidate(t *testing.T) {
	for _, tc := range []struct {
		limits limit.Limits
		ok     bool
	}{
		{limit.Limits{}, true},
		{operations(1, 0), true},
		{bytes(limit.MaxPerSecond, limit.MaxBurst), true},
		{bytes(limit.MaxPerSecond+1, 0), false},
		{operations(1, limit.MaxBurst+1), false},
		{operations(0, 1), false},
	} {
		if err := tc.limits.Validate(); (err == nil) != tc.ok || err != nil && !errors.Is(err, qverr.Inval) {
			t.Errorf("%+v: %v", tc.limits, err)
		}
	}
}

func BenchmarkTake(b *testing.B) {
	l := limit.New(operations(limit.MaxPerSecond, limit.MaxBurst))
	b.ReportAllocs()
	b.RunParallel(func(pb *testing.PB) {
		for pb.Next() {
			l.Take(4096)
		}
	})
}
