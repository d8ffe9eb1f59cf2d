package quac100

import (
	"context"
	"errors"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// Counters are the card's own, as of one instant.
type Counters struct {
	At          time.Duration `json:"at_ns"` // since the card's power-up
	KEMKeygen   uint64        `json:"kem_key_generations"`
	Encapsulate uint64        `json:"encapsulations"`
	Decapsulate uint64        `json:"decapsulations"`
	SigKeygen   uint64        `json:"signature_key_generations"`
	Sign        uint64        `json:"signatures"`
	Verify      uint64        `json:"verifications"`
	RandomBytes uint64        `json:"random_bytes"`
	AES         uint64        `json:"aes_operations"`
	AESBytes    uint64        `json:"aes_bytes"`
	Keys        uint64        `json:"key_operations"`
	OK          uint64        `json:"commands_ok"`
	Failed      uint64        `json:"commands_failed"`
	Read        uint64        `json:"dma_bytes_read"`
	Written     uint64        `json:"dma_bytes_written"`
	Interrupts  uint64        `json:"interrupts_sent"`
	Merged      uint64        `json:"interrupts_merged"`
	BusyNS      uint64        `json:"busy_ns"`
	StallNS     uint64        `json:"stalled_ns"`
	DepthMax    uint32        `json:"depth_max"`
	OpsRate     uint32        `json:"operations_per_second"` // between the last two snapshots

	// Latency is the histogram of all operations: bucket 0 below 1 µs, n from
	// 2^(n-1) to 2^n µs, the last one all above.
	Latency [regs.HistBuckets]uint32 `json:"latency_histogram"`
}

// Counters takes a snapshot of the card's performance counters and reads it.
func (c *Card) Counters(ctx context.Context) (Counters, error) {
	c.counting.Lock()
	defer c.counting.Unlock()
	if f := c.failure.Load(); f != nil {
		return Counters{}, f.err
	}
	seq := c.bus.Read32(regs.PerfSeq)
	c.bus.Write32(regs.PerfHistSel, regs.HistAll)
	c.bus.Write32(regs.PerfCtrl, regs.PerfEnable|regs.PerfSnapshot)
	err := c.poll(ctx, stepLimit, func() (bool, error) { return c.bus.Read32(regs.PerfSeq) != seq, nil })
	if errors.Is(err, errPoll) {
		return Counters{}, qverr.New(qverr.QUACWatchdog, "card %s takes no snapshot of its counters", c.bus.Address())
	}
	if err != nil {
		return Counters{}, err
	}
	out := Counters{At: time.Duration(c.read64(regs.PerfTimeLo)), DepthMax: c.bus.Read32(regs.PerfDepthMax), OpsRate: c.bus.Read32(regs.PerfOpsRate)}
	for r, p := range map[regs.Reg]*uint64{
		regs.PerfKEMKeygenLo: &out.KEMKeygen, regs.PerfEncapsLo: &out.Encapsulate, regs.PerfDecapsLo: &out.Decapsulate,
		regs.PerfSigKeygenLo: &out.SigKeygen, regs.PerfSignLo: &out.Sign, regs.PerfVerifyLo: &out.Verify,
		regs.PerfQRNGBytesLo: &out.RandomBytes, regs.PerfAESOpsLo: &out.AES, regs.PerfAESBytesLo: &out.AESBytes,
		regs.PerfKeyOpsLo: &out.Keys, regs.PerfCmdsOKLo: &out.OK, regs.PerfCmdsFailedLo: &out.Failed,
		regs.PerfDMARdLo: &out.Read, regs.PerfDMAWrLo: &out.Written, regs.PerfIRQSentLo: &out.Interrupts,
		regs.PerfIRQMergedLo: &out.Merged, regs.PerfBusyNSLo: &out.BusyNS, regs.PerfStallNSLo: &out.StallNS,
	} {
		*p = c.read64(r)
	}
	for i := range out.Latency {
		out.Latency[i] = c.bus.Read32(regs.PerfHist0 + regs.Reg(4*i))
	}
	return out, nil
}
