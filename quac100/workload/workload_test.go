package workload_test

import (
	"strings"
	"sync"
	"testing"
	"time"

	"quantavirt/quac100"
	"quantavirt/quac100/direct"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/workload"
)

// listener notes the opcodes that the card fetches.
type listener struct {
	*direct.Bus
	card *model.Card
	mu   sync.Mutex
	seen map[regs.Opcode]int
}

func (l *listener) ReadDMA(iova uint64, p []byte) error {
	err := l.Bus.ReadDMA(iova, p)
	base := uint64(l.card.Read32(regs.CMDQBaseLo)) | uint64(l.card.Read32(regs.CMDQBaseHi))<<32
	if err != nil || iova < base || iova >= base+1024*regs.CommandSize {
		return err
	}
	l.mu.Lock()
	defer l.mu.Unlock()
	for ; len(p) >= regs.CommandSize; p = p[regs.CommandSize:] {
		cmd, err := regs.ParseCommand(p)
		if err != nil {
			return err
		}
		l.seen[cmd.Opcode]++
	}
	return nil
}

// Even the smallest load has every opcode and every algorithm in it, does as many
// operations as it says, and leaves no key behind.
func TestEveryOpcode(t *testing.T) {
	ctx := t.Context()
	m, err := model.New(model.Config{HostMSIX: true})
	if err != nil {
		t.Fatal(err)
	}
	defer m.Close()
	l := &listener{Bus: direct.New(m), card: m, seen: make(map[regs.Opcode]int)}
	m.Connect(l)
	card, err := quac100.Open(ctx, l, quac100.WithResetLimit(time.Minute))
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	if err := workload.Clear(ctx, card); err != nil {
		t.Error(err)
	}
	clear(l.seen)
	before := card.Stats().OK
	r, err := workload.Load{Card: card, Callers: 32, Operations: 500}.Run(ctx)
	if err != nil {
		t.Fatal(err)
	}
	for name, n := range r.Steps {
		if n == 0 {
			t.Errorf("%s was left out", name)
		}
	}
	total := 0
	for op := regs.OpNOP; op <= regs.OpInfo; op++ {
		total += l.seen[op]
		if known := !strings.HasPrefix(op.String(), "opcode "); known && l.seen[op] == 0 && op != regs.OpKeyZeroizeAll {
			t.Errorf("%v was not sent", op)
		}
	}
	if total != r.Operations || card.Stats().OK-before > uint64(total) {
		t.Errorf("%d commands for %d operations", total, r.Operations)
	}
	if keys, err := card.ListKeys(ctx); err != nil || len(keys) != 0 {
		t.Errorf("keys left: %v, %v", keys, err)
	}
}
