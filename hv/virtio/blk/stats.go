package blk

import (
	"math/bits"
	"sync/atomic"
	"time"
)

// LatencyBuckets is how many buckets a histogram has: bucket i counts requests that
// took less than 2^i microseconds and at least half of that; the last one all
// that took longer.
const LatencyBuckets = 24

// Stats are what the guest asked of a disk. They only grow.
type Stats struct {
	Reads, ReadBytes, Writes, WriteBytes, Flushes, Discards, Errors uint64
	// Throttled counts the requests that had to wait for a limit.
	Throttled uint64
	// Latency is of all requests, from when they were taken from the queue until they
	// were given back, with the wait for a limit.
	Latency Latency
}

// Latency is a distribution of times.
type Latency struct {
	Sum, Max time.Duration
	Buckets  [LatencyBuckets]uint64
}

// counters are those of one queue. Only its goroutine writes them; queues must not
// share a cache line of them.
type counters struct {
	_                                                               [64]byte
	reads, readBytes, writes, writeBytes, flushes, discards, errors atomic.Uint64
	throttled                                                       atomic.Uint64
	sum, max                                                        atomic.Int64
	buckets                                                         [LatencyBuckets]atomic.Uint64
	_                                                               [64]byte
}

func (c *counters) took(t time.Duration) {
	c.sum.Add(int64(t))
	if int64(t) > c.max.Load() {
		c.max.Store(int64(t))
	}
	c.buckets[min(bits.Len64(uint64(t.Microseconds())), LatencyBuckets-1)].Add(1)
}

func (c *counters) addTo(s *Stats) {
	s.Reads += c.reads.Load()
	s.ReadBytes += c.readBytes.Load()
	s.Writes += c.writes.Load()
	s.WriteBytes += c.writeBytes.Load()
	s.Flushes += c.flushes.Load()
	s.Discards += c.discards.Load()
	s.Errors += c.errors.Load()
	s.Throttled += c.throttled.Load()
	s.Latency.Sum += time.Duration(c.sum.Load())
	s.Latency.Max = max(s.Latency.Max, time.Duration(c.max.Load()))
	for i := range c.buckets {
		s.Latency.Buckets[i] += c.buckets[i].Load()
	}
}

// Stats reads the counters of all queues.
func (d *Device) Stats() Stats {
	var s Stats
	for _, q := range d.queues {
		q.counters.addTo(&s)
	}
	return s
}
