package tpm_test

import (
	"errors"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
	"quantavirt/internal/tpm/tpmtest"
)

// A counter counts by one, and is never again what it was, even when it is made anew.
func TestCounter(t *testing.T) {
	d := tpmtest.New(t)
	if _, err := d.Counter(tpm.CounterIndex); !errors.Is(err, qverr.NoEnt) {
		t.Fatalf("before it is made: %v", err)
	}
	var last uint64
	for i := range 3 {
		n, err := d.Count(tpm.CounterIndex)
		if err != nil {
			t.Fatal(err)
		}
		if i > 0 && n != last+1 {
			t.Errorf("%d after %d", n, last)
		}
		last = n
	}
	if n, err := d.Counter(tpm.CounterIndex); err != nil || n != last {
		t.Errorf("%d, %v; want %d", n, err, last)
	}
	if err := d.RemoveCounter(tpm.CounterIndex); err != nil {
		t.Fatal(err)
	}
	if n, err := d.Count(tpm.CounterIndex); err != nil || n <= last {
		t.Errorf("made anew it is %d, %v; it was %d", n, err, last)
	}
}
