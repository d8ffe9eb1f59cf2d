package guard

import (
	"bytes"
	"context"
	"strings"
	"testing"
	"testing/synctest"

	"quantavirt/internal/qvlog"
)

func TestLoopSurvivesPanics(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		var out bytes.Buffer
		calls := 0
		done := make(chan struct{})
		Loop(t.Context(), qvlog.New(&out, qvlog.Options{}), "part", func(context.Context) {
			calls++
			if calls < 3 {
				panic("on purpose")
			}
			close(done)
		})
		<-done
		synctest.Wait()
		if calls != 3 || strings.Count(out.String(), "part panicked") != 2 {
			t.Errorf("%d calls, log:\n%s", calls, out.String())
		}
	})
}
