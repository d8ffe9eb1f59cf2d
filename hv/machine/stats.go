package machine

import (
	"sync"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/kvm"
)

// VCPUStats counts what one vCPU did since Start, over all resets.
type VCPUStats struct {
	// Exits counts returns of KVM_RUN by their reason, KVM_EXIT_*; those by a signal
	// are ExitIntr.
	Exits   [kvm.MaxReason]uint64
	CPUTime time.Duration // of its thread, guest and host together
}

// Total is the number of all exits.
func (s *VCPUStats) Total() (n uint64) {
	for _, e := range s.Exits {
		n += e
	}
	return n
}

// Stats are the counters of the machine.
type Stats struct {
	VCPUs  []VCPUStats
	Resets uint64
	// FirstEntry is when the first vCPU first entered the guest; zero before.
	FirstEntry time.Time
	// Touched is the guest memory in use, in bytes.
	Touched int64
}

// Stats reads the counters.
func (m *Machine) Stats() Stats {
	m.mu.Lock()
	s := Stats{Resets: m.resets}
	m.mu.Unlock()
	for _, c := range m.counters {
		s.VCPUs = append(s.VCPUs, c.read())
	}
	if ns := m.firstEntry.Load(); ns != 0 {
		s.FirstEntry = time.Unix(0, ns)
	}
	s.Touched = m.mem.Touched()
	return s
}

type counters struct {
	exits [kvm.MaxReason]atomic.Uint64

	mu    sync.Mutex
	tid   int
	spent time.Duration // by earlier threads
}

func (c *counters) count(reason uint32) { c.exits[min(reason, kvm.MaxReason-1)].Add(1) }

func (c *counters) total() (n uint64) {
	for i := range c.exits {
		n += c.exits[i].Load()
	}
	return n
}

// follow and unfollow run in the thread whose time is to be counted.
func (c *counters) follow(tid int) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.tid = tid
	c.spent -= threadTime(tid) // what the thread did before
}

func (c *counters) unfollow() {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.spent += threadTime(c.tid)
	c.tid = 0
}

func (c *counters) read() VCPUStats {
	c.mu.Lock()
	defer c.mu.Unlock()
	s := VCPUStats{CPUTime: c.spent}
	for i := range c.exits {
		s.Exits[i] = c.exits[i].Load()
	}
	if c.tid != 0 {
		s.CPUTime += threadTime(c.tid)
	}
	return s
}

// threadTime reads the CPU clock of a thread of this process.
func threadTime(tid int) time.Duration {
	// <linux/posix-timers.h>: CPUCLOCK_PERTHREAD_MASK 4, CPUCLOCK_SCHED 2.
	var ts unix.Timespec
	if err := unix.ClockGettime(int32(^tid<<3|4|2), &ts); err != nil {
		return 0
	}
	return time.Duration(ts.Nano())
}
