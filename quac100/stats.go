package quac100

import (
	"sync/atomic"

	"quantavirt/quac100/regs"
)

// Stats are the driver's own counters since the card was opened.
type Stats struct {
	OK             uint64            `json:"ok"`                // responses with success
	Failed         map[string]uint64 `json:"failed,omitempty"`  // other responses, by code
	Dropped        uint64            `json:"dropped"`           // in flight when the card was given up
	Abandoned      uint64            `json:"abandoned"`         // whose caller left early
	Waited         uint64            `json:"waited"`            // that had to wait for a place in the ring
	Refused        uint64            `json:"refused"`           // because too many waited
	InFlight       int               `json:"in_flight"`         //
	Doorbells      uint64            `json:"doorbells"`         // one may announce many commands
	Interrupts     uint64            `json:"interrupts"`        // of responses
	LostInterrupts uint64            `json:"lost_interrupts"`   // responses found without one
	WakeUps        uint64            `json:"wake_ups"`          // of the reader
	Polled         uint64            `json:"polled"`            // responses found by looking, without sleeping
	DeviceNS       uint64            `json:"device_time_ns"`    // sum of the card's latencies
	SoftResets     uint64            `json:"soft_resets"`       // by the watchdog's ladder
	FunctionResets uint64            `json:"function_resets"`   //
	Recoveries     uint64            `json:"recoveries"`        // after which the card served again
	PoolBytes      int               `json:"dma_pool_bytes"`    //
	Events         map[string]uint64 `json:"events,omitempty"`  // interrupt causes seen
	PollingOnly    bool              `json:"polling,omitempty"` // interrupts are lost: the driver looks by itself
}

type counters struct {
	ok, deviceNS, dropped, abandoned, waited, refused, doorbells atomic.Uint64
	interrupts, lost, wakes, polled, soft, flr, recoveries       atomic.Uint64
	failed                                                       [256]atomic.Uint64
	events                                                       [32]atomic.Uint64
}

func (c *counters) answered(r *regs.Response) {
	c.deviceNS.Add(uint64(r.LatencyNS))
	if r.Status == regs.RespSuccess {
		c.ok.Add(1)
		return
	}
	c.failed[min(r.Status, regs.RespUnknown)].Add(1)
}

// Stats reads the driver's counters.
func (c *Card) Stats() Stats {
	n := &c.stats
	s := Stats{
		OK: n.ok.Load(), Dropped: n.dropped.Load(), Abandoned: n.abandoned.Load(), Waited: n.waited.Load(), Refused: n.refused.Load(),
		InFlight: int(c.ring.inFlight.Load()), Doorbells: n.doorbells.Load(), Interrupts: n.interrupts.Load(),
		LostInterrupts: n.lost.Load(), WakeUps: n.wakes.Load(), Polled: n.polled.Load(), DeviceNS: n.deviceNS.Load(),
		SoftResets: n.soft.Load(), FunctionResets: n.flr.Load(), Recoveries: n.recoveries.Load(),
		Failed: make(map[string]uint64), Events: make(map[string]uint64), PollingOnly: c.ring.polls.Load(),
	}
	c.pool.mu.Lock()
	s.PoolBytes = c.pool.size
	c.pool.mu.Unlock()
	for i := range n.failed {
		if v := n.failed[i].Load(); v > 0 {
			s.Failed[regs.RespStatus(i).String()] = v
		}
	}
	for i := range n.events {
		if v := n.events[i].Load(); v > 0 {
			s.Events[regs.Cause(i).String()] = v
		}
	}
	return s
}
