package quac100

import (
	"log/slog"
	"testing"

	"quantavirt/quac100/regs"
)

// heapBus is memory without a card.
type heapBus struct{ Bus }

func (heapBus) AllocDMA(size int) (Buffer, error) {
	return Buffer{Bytes: make([]byte, size), IOVA: 4096}, nil
}
func (heapBus) FreeDMA(Buffer) error     { return nil }
func (heapBus) Write32(regs.Reg, uint32) {}
func (heapBus) Read32(regs.Reg) uint32   { return regs.QueueEnable }

// FuzzResponses lets a hostile card fill the response ring while one command is
// in flight: only a response with that command's tag and opcode reaches it, and
// anything else is told as damage.
func FuzzResponses(f *testing.F) {
	good := make([]byte, regs.ResponseSize)
	(&regs.Response{Tag: 1<<12 | 3, Opcode: regs.OpEcho, Flags: regs.RespPhase}).Put(good)
	f.Add(good)
	f.Add(append(good[:len(good):len(good)], good...))
	f.Add(make([]byte, 4*regs.ResponseSize))
	f.Fuzz(func(t *testing.T, b []byte) {
		o := defaults()
		o.ring, o.log = 16, slog.New(slog.DiscardHandler)
		p, err := newPool(heapBus{}, 0)
		if err != nil {
			t.Fatal(err)
		}
		var told error
		r, err := newRing(heapBus{}, &o, p, &counters{}, func(err error) { told = err })
		if err != nil {
			t.Fatal(err)
		}
		p.ring = r
		if err := r.start(); err != nil {
			t.Fatal(err)
		}
		defer r.close()
		var s *slot
		for range 4 {
			s = <-r.free
		}
		s.cmd, s.wait = regs.Command{Opcode: regs.OpEcho}, &s.own
		s.own.pending.Store(1)
		if err := r.submit(s); err != nil {
			t.Fatal(err)
		}
		r.reading.Lock()
		copy(r.rsps.Bytes, b)
		r.reading.Unlock()
		n := r.drain()
		done := s.state.Load() == slotDone
		if done && (s.rsp.Tag != s.cmd.Tag || s.rsp.Opcode != regs.OpEcho) {
			t.Errorf("a response of tag %#x and %s reached the command %#x", s.rsp.Tag, s.rsp.Opcode, s.cmd.Tag)
		}
		if n > 1 || n == 1 && !done {
			t.Errorf("%d responses were taken for one command", n)
		}
		if told == nil && !r.quiet && n == 0 && done {
			t.Error("the command is done, and nothing was read")
		}
	})
}
