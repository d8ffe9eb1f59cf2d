package net_test

import (
	"errors"
	"testing"
	"time"

	"quantavirt/hv/limit"
	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/hv/virtio/net"
	"quantavirt/internal/qverr"
)

// TestLimits: over the limit packets wait, in both directions, and go on when the limit
// is taken away.
func TestLimits(t *testing.T) {
	taps, host := newTAPs(t, goodFlags, 1)
	tight := limit.Limits{Bytes: limit.Rate{PerSecond: 1, Burst: 1}}
	dev, err := net.New(taps, net.Options{MAC: guestMAC, Limits: tight})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Driver: driver.New(t, dev, driver.NewMemory(t)), dev: dev, host: host}
	t.Cleanup(dev.Close)
	r.Start(0)
	buffers := r.offer(0, 16, 2000)
	out := r.Queues[1]
	header := make([]byte, headerSize)
	const packets = 8
	for i := range packets {
		out.Add(out.Out(header), out.Out(frame("out")))
		r.fromHost(frame(string(rune('a' + i))))
	}
	out.Kick()
	// The first passes and closes the gate for the second at the latest.
	r.Interrupted(1, 50)
	r.Interrupted(2, 50)
	if s := dev.Stats(); s.TxPackets > 2 || s.RxPackets > 2 {
		t.Errorf("over the limit: %+v", s)
	}
	if dev.Limits() != tight {
		t.Errorf("%+v", dev.Limits())
	}
	if err := dev.SetLimits(limit.Limits{Bytes: limit.Rate{Burst: 1}}); !errors.Is(err, qverr.Inval) {
		t.Errorf("%v", err)
	}
	if err := dev.SetLimits(limit.Limits{}); err != nil {
		t.Fatal(err)
	}
	for range packets {
		out.Wait()
	}
	for deadline := time.Now().Add(10 * time.Second); ; {
		if got := receiveGuest(t, r.Queues[0], buffers); got[len(got)-1] == 'a'+packets-1 {
			break
		}
		if time.Now().After(deadline) {
			t.Fatal("the last packet does not come")
		}
	}
	if s := dev.Stats(); s.TxPackets != packets || s.RxPackets < packets {
		t.Errorf("%+v", s)
	}
}
