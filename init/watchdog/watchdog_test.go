package watchdog

import (
	"context"
	"io"
	"sync/atomic"
	"testing"
	"testing/synctest"
	"time"

	"quantavirt/internal/qvlog"
)

func TestFedOnlyWhileAlive(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		ctx, cancel := context.WithCancel(t.Context())
		defer cancel()
		var pulse Pulse
		pulse.Beat()
		var meals atomic.Int32
		go Feed(ctx, qvlog.New(io.Discard, qvlog.Options{}), time.Minute,
			func() bool { return pulse.Within(30 * time.Second) }, func() error { meals.Add(1); return nil })
		for range 60 {
			time.Sleep(10 * time.Second)
			pulse.Beat()
		}
		synctest.Wait()
		if fed := meals.Load(); fed != 41 {
			t.Errorf("fed %d times in ten minutes", fed)
		}
		time.Sleep(time.Minute) // the pulse has stopped
		synctest.Wait()
		before := meals.Load()
		time.Sleep(10 * time.Minute)
		synctest.Wait()
		if fed := meals.Load(); fed != before || before > 44 {
			t.Errorf("fed %d, then %d times without a pulse", before, fed)
		}
		pulse.Beat()
		time.Sleep(20 * time.Second)
		synctest.Wait()
		if meals.Load() == before {
			t.Error("not fed when the pulse came back")
		}
	})
}
