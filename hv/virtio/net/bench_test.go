package net_test

import (
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/internal/driver"
)

// spin waits without an interrupt, which would cost more than the packet.
func spin(q *driver.Queue) {
	for {
		if _, _, ok := q.Done(); ok {
			return
		}
		runtime.Gosched()
	}
}

// BenchmarkTransmit and BenchmarkReceive move packets of 1400 bytes one by one; the
// driver of the test allocates nothing either, so allocs/op are the device's.
func BenchmarkTransmit(b *testing.B) {
	r := newRig(b, 1, virtio.FeatureEventIdx)
	q := r.Queues[1]
	buf := q.Out(append(make([]byte, headerSize), udp(1, true, string(make([]byte, 1358)))...))
	b.ReportAllocs()
	for b.Loop() {
		q.Add(buf)
		q.Kick()
		spin(q)
	}
	if s := r.dev.Stats(); s.TxErrors > 0 || s.TxPackets == 0 {
		b.Errorf("%+v", s)
	}
}

func BenchmarkReceive(b *testing.B) {
	r := newRig(b, 1, virtio.FeatureEventIdx|mergeable)
	q := r.Queues[0]
	for range 64 {
		q.Add(q.In(1536))
	}
	q.Kick()
	packet := udp(1, false, string(make([]byte, 1358)))
	again := q.In(1536)
	b.ReportAllocs()
	for b.Loop() {
		if _, err := unix.Write(r.host, packet); err != nil {
			b.Fatal(err)
		}
		spin(q)
		q.Add(again)
	}
	if s := r.dev.Stats(); s.RxDropped > 0 || s.RxPackets == 0 {
		b.Errorf("%+v", s)
	}
}
