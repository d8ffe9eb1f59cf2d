package quac100_test

import (
	"encoding/binary"
	"fmt"
	"os"
	"regexp"
	"runtime"
	"strconv"
	"strings"
	"sync"
	"testing"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/workload"
)

// Variables of the environment for a card behind VFIO: its PCI address, and how many
// operations it is given.
const (
	addressVariable    = "QUANTAVIRT_CARD"
	operationsVariable = "QUANTAVIRT_CARD_OPERATIONS"
)

// countingBus knows what memory the card has of us.
type countingBus struct {
	quac100.Bus
	mu     sync.Mutex
	mapped map[uint64]uint64 // size by I/O address
}

func (b *countingBus) AllocDMA(size int) (quac100.Buffer, error) {
	buf, err := b.Bus.AllocDMA(size)
	b.mu.Lock()
	defer b.mu.Unlock()
	if err == nil {
		b.mapped[buf.IOVA] = uint64(len(buf.Bytes))
	}
	return buf, err
}

func (b *countingBus) FreeDMA(buf quac100.Buffer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	delete(b.mapped, buf.IOVA)
	return b.Bus.FreeDMA(buf)
}

// end is the first address after all memory of the card's.
func (b *countingBus) end() (top uint64) {
	b.mu.Lock()
	defer b.mu.Unlock()
	for iova, n := range b.mapped {
		top = max(top, iova+n)
	}
	return top
}

func (b *countingBus) holds(iova uint64) bool {
	b.mu.Lock()
	defer b.mu.Unlock()
	for base, n := range b.mapped {
		if iova >= base && iova < base+n {
			return true
		}
	}
	return false
}

// The whole load, the model being in the same process.
func TestLoad(t *testing.T) {
	_, bus := plug(t, model.Config{})
	carry(t, bus, 500)
}

// The whole load on the card at QUANTAVIRT_CARD, through VFIO and the IOMMU. Somebody
// may hold the card when the test begins, and is waited for.
func TestLoadVFIO(t *testing.T) {
	address := os.Getenv(addressVariable)
	if address == "" {
		t.Skip("no card: " + addressVariable + " has no PCI address")
	}
	operations, err := strconv.Atoi(os.Getenv(operationsVariable))
	if err != nil {
		t.Fatal(operationsVariable, err)
	}
	startPoller(t)
	before := resources(t)
	// By chance a real address may be mapped for the card as another one, in one of the two rounds.
	if n := carry(t, openWhenFree(t, address), operations); n < 14 {
		t.Errorf("only %d addresses were tried that are not the card's", n)
	}
	eventually(t, "the end of the driver's goroutines", func() bool { return resources(t).goroutines <= before.goroutines })
	if after := resources(t); after != before {
		t.Errorf("left behind: %+v, before it were %+v", after, before)
	}
}

func openWhenFree(t *testing.T, address string) quac100.Bus {
	t.Helper()
	for limit := time.Now().Add(2 * time.Minute); ; time.Sleep(time.Millisecond) {
		bus, err := quac100.OpenVFIOBus(address)
		if err == nil {
			return bus
		}
		if qverr.CodeOf(err) != qverr.Busy || time.Now().After(limit) {
			t.Fatal(err)
		}
	}
}

// startPoller makes the runtime open what it keeps for good.
func startPoller(t *testing.T) {
	t.Helper()
	r, w, err := os.Pipe()
	if err != nil {
		t.Fatal(err)
	}
	r.Close()
	w.Close()
}

// held is what the process has of the system.
type held struct {
	goroutines, descriptors int
	locked                  string // memory, also for DMA
}

var lockedLine = regexp.MustCompile(`(?m)^VmLck:\s*(.*)$`)

func resources(t *testing.T) held {
	t.Helper()
	files, err := os.ReadDir("/proc/self/fd")
	if err != nil {
		t.Fatal(err)
	}
	status, err := os.ReadFile("/proc/self/status")
	if err != nil {
		t.Fatal(err)
	}
	return held{runtime.NumGoroutine(), len(files), string(lockedLine.FindSubmatch(status)[1])}
}

// carry opens the card, gives it addresses that it must not reach, loads it from 32 callers
// while it is given more of them, and wants no error, no reset and nothing left behind.
// It returns how many addresses that were.
func carry(t *testing.T, inner quac100.Bus, operations int) (faults int) {
	t.Helper()
	ctx := t.Context()
	bus := &countingBus{Bus: inner, mapped: make(map[uint64]uint64)}
	card, err := quac100.Open(ctx, bus, patient)
	if err != nil {
		t.Fatal(err)
	}
	if err := workload.Clear(ctx, card); err != nil {
		t.Error(err)
	}
	before := card.Stats()
	signs := make(map[string]bool)
	for _, a := range regs.Algorithms() {
		signs[a.Name] = a.Family == regs.FamilySignature
	}
	faults = unmapped(t, card, bus, true)
	var under int
	var both sync.WaitGroup
	both.Go(func() { under = unmapped(t, card, bus, false) })
	started := time.Now()
	r, err := workload.Load{Card: card, Callers: 32, Operations: operations}.Run(ctx)
	if err != nil {
		t.Error(err)
	}
	rate := float64(r.Operations) / time.Since(started).Seconds()
	both.Wait()
	faults += under
	refused := 0 // each signature of the load has one like it that is wrong
	for name, n := range r.Steps {
		if signs[name] {
			refused += n
		}
	}
	s := card.Stats()
	t.Logf("%d operations from 32 callers, %.0f a second; %d refused for DMA; %d interrupts, %d doorbells, %d KiB of DMA memory",
		r.Operations, rate, faults, s.Interrupts, s.Doorbells, s.PoolBytes>>10)
	if got := s.Failed[regs.RespCryptoFail.String()]; got != uint64(refused) {
		t.Errorf("%d signatures refused, want %d", got, refused)
	}
	if got := s.Failed[regs.RespDMAError.String()]; got != uint64(faults) || len(s.Failed) != 2 {
		t.Errorf("failed: %v, want %d of DMA", s.Failed, faults)
	}
	if n := s.OK - before.OK; n < uint64(r.Operations-refused) {
		t.Errorf("%d operations succeeded, want %d", n, r.Operations-refused)
	}
	if s.SoftResets+s.FunctionResets+s.Dropped+s.Abandoned+s.Refused != 0 || s.InFlight != 0 || s.PollingOnly {
		t.Errorf("%+v", s)
	}
	if keys, err := card.ListKeys(ctx); err != nil || len(keys) != 0 {
		t.Errorf("keys left on the card: %v, %v", keys, err)
	}
	if n, places := card.Held(); n != 0 || places != 0 {
		t.Errorf("%d bytes of the pool and %d places in the ring are not given back", n, places)
	}
	if err := workload.Clear(ctx, card); err != nil {
		t.Error(err)
	}
	if err := card.Close(); err != nil {
		t.Error(err)
	}
	if len(bus.mapped) != 0 {
		t.Errorf("mapped for the card after its end: %#x", bus.mapped)
	}
	return faults
}

// unmapped gives the card addresses that are not its own, wants QUAC100_ERR_DMA for each
// and that the card goes on, and returns how many there were. Only with nothing else going
// on is it known what was freed, and where the mappings end.
func unmapped(t *testing.T, card *quac100.Card, bus *countingBus, alone bool) (n int) {
	t.Helper()
	const page = 4096
	mine, err := bus.AllocDMA(2 * page)
	if err != nil {
		t.Error(err)
		return
	}
	defer func() {
		if err := bus.FreeDMA(mine); err != nil {
			t.Error(err)
		}
	}()
	const never = 0xE000_0000
	mine.Bytes[0] = 1 // so that there is a page behind it
	list := mine.Bytes[page:]
	regs.SG{Addr: mine.IOVA, Len: 64}.Put(list)
	regs.SG{Addr: never, Len: 64, Flags: regs.SGLast}.Put(list[regs.SGSize:])
	good := make([]byte, 128)
	echo := regs.Command{Opcode: regs.OpEcho}
	from := func(iova uint64, n uint32) regs.Command { c := echo; c.Src0, c.Src0Len = iova, n; return c }
	to := func(iova uint64, n uint32) regs.Command { c := echo; c.Dst0, c.Dst0Len = iova, n; return c }
	type wrong struct {
		name     string
		cmd      regs.Command
		src, dst []byte
		detail   regs.Detail
	}
	table := []wrong{
		{"source never mapped", from(never, 128), nil, good, regs.DetailSrcFault},
		{"destination never mapped", to(never, 128), good, nil, regs.DetailDstFault},
		{"a list's second entry", from(mine.IOVA+page, 128), nil, good, regs.DetailSrcFault},
		{"the list itself", from(never, 128), nil, good, regs.DetailSrcFault},
		{"the machine's first megabyte", from(0x10000, 128), nil, good, regs.DetailSrcFault},
	}
	table[2].cmd.Flags, table[3].cmd.Flags = regs.FlagSGSrc0, regs.FlagSGSrc0
	if real, ok := physical(mine.Bytes); ok && !bus.holds(real) {
		table = append(table, wrong{"the real address of our memory", from(real, 128), nil, good, regs.DetailSrcFault},
			wrong{"our memory's real address as destination", to(real, 128), good, nil, regs.DetailDstFault})
	}
	if alone {
		freed, err := bus.AllocDMA(page)
		if err != nil {
			t.Error(err)
			return
		}
		if err := bus.FreeDMA(freed); err != nil {
			t.Error(err)
		}
		table = append(table, wrong{"source at a freed buffer", from(freed.IOVA, 128), nil, good, regs.DetailSrcFault},
			wrong{"over the end of the last mapping", from(bus.end()-64, 128), nil, good, regs.DetailSrcFault})
	}
	for _, w := range table {
		n++
		want(t, w.name, card.Send(t.Context(), w.cmd, w.src, w.dst), qverr.QUACDMA, w.detail)
		if err := card.Send(t.Context(), from(mine.IOVA, 128), nil, good); err != nil {
			t.Errorf("after %s: %v", w.name, err)
		}
	}
	return n
}

// physical is where the first byte of memory lies in the machine, if that may be known
// (Documentation/admin-guide/mm/pagemap.rst).
func physical(mem []byte) (uint64, bool) {
	f, err := os.Open("/proc/self/pagemap")
	if err != nil {
		return 0, false
	}
	defer f.Close()
	address, err := strconv.ParseUint(strings.TrimPrefix(fmt.Sprintf("%p", mem), "0x"), 16, 64)
	var entry [8]byte
	if _, e := f.ReadAt(entry[:], int64(address/4096*8)); err != nil || e != nil {
		return 0, false
	}
	frame := binary.LittleEndian.Uint64(entry[:]) & (1<<55 - 1)
	return frame*4096 + address%4096, frame != 0
}
