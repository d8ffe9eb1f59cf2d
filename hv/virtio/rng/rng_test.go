package rng_test

import (
	"bytes"
	"testing"

	"quantavirt/hv/limit"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/hv/virtio/rng"
)

func TestFills(t *testing.T) {
	d := driver.New(t, rng.New(nil), driver.NewMemory(t))
	d.Start(virtio.FeatureEventIdx)
	q := d.Queues[0]
	a, b := q.In(64), q.In(100)
	if n := q.Do(a, b); n != 164 {
		t.Fatalf("%d bytes", n)
	}
	if zero := make([]byte, 64); bytes.Equal(q.Bytes(a), zero) || bytes.Equal(q.Bytes(a), q.Bytes(b)[:64]) {
		t.Fatal("not random")
	}
	// A request without room is answered; a large one is cut.
	if n := q.Do(q.Out([]byte("no room"))); n != 0 {
		t.Errorf("%d bytes", n)
	}
	if n := q.Do(q.In(100_000)); n != 64<<10 {
		t.Errorf("%d bytes", n)
	}
	if d.Read(4, 0, 8) != 0 {
		t.Error("a configuration")
	}
}

func TestPause(t *testing.T) {
	d := driver.New(t, rng.New(nil), driver.NewMemory(t))
	d.Start(0)
	if err := d.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	q := d.Queues[0]
	q.Add(q.In(8))
	q.Kick()
	d.Interrupted(1, 30)
	if _, _, ok := q.Done(); ok {
		t.Fatal("guest memory was written during the pause")
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	q.Wait()
}

// TestLimit: a guest that draws without end waits.
func TestLimit(t *testing.T) {
	l := limit.New(limit.Limits{Bytes: limit.Rate{PerSecond: 1, Burst: 100}})
	d := driver.New(t, rng.New(l), driver.NewMemory(t))
	d.Start(0)
	q := d.Queues[0]
	for range 20 {
		q.Add(q.In(50))
	}
	q.Kick()
	n := 0
	for ; n < 2; n++ {
		q.Wait()
	}
	d.Interrupted(1, 50) // a third may pass and leave a debt
	for {
		if _, _, ok := q.Done(); !ok {
			break
		}
		n++
	}
	if n > 4 {
		t.Errorf("%d requests of 50 bytes with a burst of 100", n)
	}
}
