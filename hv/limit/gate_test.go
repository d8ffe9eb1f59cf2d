package limit_test

import (
	"testing"
	"testing/synctest"
	"time"

	"quantavirt/hv/limit"
)

func TestGate(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		woken := make(chan time.Time, 1)
		l := limit.New(bytes(1000, 100))
		g := limit.NewGate(l, func() { woken <- time.Now() })
		began := time.Now()
		passed := 0
		for time.Since(began) < 10*time.Second {
			if !g.Open() {
				<-woken
				continue
			}
			g.Charge(50)
			passed += 50
		}
		if passed < 10_000 || passed > 10_300 {
			t.Errorf("%d bytes in %v", passed, time.Since(began))
		}
		for g.Open() {
			g.Charge(100_000)
		}
		l.Set(limit.Limits{})
		g.Reopen()
		if at := <-woken; time.Since(at) > 0 || !g.Open() {
			t.Error("the gate stays closed after the limit was taken away")
		}
		free := limit.NewGate(nil, func() {})
		if free.Charge(1 << 40); !free.Open() {
			t.Error("no limit, and closed")
		}
	})
}
