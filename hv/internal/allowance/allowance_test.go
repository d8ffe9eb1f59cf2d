package allowance

import (
	"testing"
	"time"
)

func TestAllowance(t *testing.T) {
	a, now := New(10, 5), time.Unix(1000, 0)
	for i := range 5 {
		if !a.Take(1, now) {
			t.Errorf("token %d of the burst is missing", i)
		}
	}
	if a.Take(1, now) {
		t.Error("a sixth token")
	}
	if d := a.Delay(2, now); d != 200*time.Millisecond {
		t.Errorf("two tokens in %v", d)
	}
	now = now.Add(200 * time.Millisecond)
	if d := a.Delay(2, now); d != 0 {
		t.Errorf("still %v", d)
	}
	if a.Take(1, now.Add(-time.Hour)) {
		t.Error("a clock that goes back brings tokens")
	}
	now = now.Add(time.Hour)
	if !a.Take(5, now) || a.Take(1, now) {
		t.Error("an hour fills more, or less, than the bucket")
	}
}
