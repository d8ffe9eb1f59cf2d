package quac100_test

import (
	"encoding/binary"
	"fmt"
	"sync"
	"sync/atomic"
	"testing"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/quac100"
	"quantavirt/quac100/direct"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// nullBus brings a card up on the model and then answers every command itself,
// with success and nothing done: what is left is the driver.
type nullBus struct {
	*direct.Bus
	null   atomic.Bool
	tail   atomic.Uint32
	wake   chan struct{}
	handle func(int)
	cmds   []byte
	rsps   []byte

	mu     sync.Mutex
	memory map[uint64][]byte
	base   map[regs.Reg]uint32
}

func newNullBus(b testing.TB) *nullBus {
	m, err := model.New(model.Config{HostMSIX: true})
	if err != nil {
		b.Fatal(err)
	}
	b.Cleanup(func() { _ = m.Close() })
	return &nullBus{Bus: direct.New(m), wake: make(chan struct{}, 1), memory: make(map[uint64][]byte), base: make(map[regs.Reg]uint32)}
}

func (n *nullBus) AllocDMA(size int) (quac100.Buffer, error) {
	buf, err := n.Bus.AllocDMA(size)
	n.mu.Lock()
	defer n.mu.Unlock()
	n.memory[buf.IOVA] = buf.Bytes
	return buf, err
}

func (n *nullBus) Interrupts(count int, handle func(int)) error {
	n.handle = handle
	return n.Bus.Interrupts(count, handle)
}

func (n *nullBus) Write32(r regs.Reg, v uint32) {
	if n.null.Load() {
		if r == regs.CMDQTail {
			n.tail.Store(v)
			select {
			case n.wake <- struct{}{}:
			default:
			}
		}
		return
	}
	n.mu.Lock()
	n.base[r] = v
	n.mu.Unlock()
	n.Bus.Write32(r, v)
}

// processorTime is what the process has had of the processors, in
// nanoseconds: on a machine that is shared it says more than the clock.
func processorTime(b testing.TB) int64 {
	var u unix.Rusage
	if err := unix.Getrusage(unix.RUSAGE_SELF, &u); err != nil {
		b.Fatal(err)
	}
	return u.Utime.Nano() + u.Stime.Nano()
}

// take puts the null engine in the card's place. Nothing is in flight.
func (n *nullBus) take(b testing.TB) {
	n.mu.Lock()
	at := func(lo regs.Reg) []byte { return n.memory[uint64(n.base[lo+4])<<32|uint64(n.base[lo])] }
	n.cmds, n.rsps = at(regs.CMDQBaseLo), at(regs.RSPQBaseLo)
	next := n.base[regs.CMDQTail]
	n.mu.Unlock()
	n.tail.Store(next)
	n.null.Store(true)
	done := make(chan struct{})
	stop := make(chan struct{})
	go func() {
		defer close(done)
		n.engine(next, stop)
	}()
	b.Cleanup(func() {
		close(stop)
		<-done
	})
}

func (n *nullBus) engine(next uint32, stop <-chan struct{}) {
	size := uint32(len(n.cmds) / regs.CommandSize)
	phase := uint32(1) << 16
	for {
		select {
		case <-stop:
			return
		case <-n.wake:
		}
		for any := false; ; any = true {
			tail := n.tail.Load()
			if next == tail {
				if any {
					n.handle(regs.VectorResponses)
				}
				break
			}
			for ; next != tail; next = (next + 1) % size {
				c, r := n.cmds[next*regs.CommandSize:], n.rsps[next*regs.ResponseSize:]
				copy(r[:4], c[0x08:0x0C])
				binary.LittleEndian.PutUint32(r[4:], uint32(binary.LittleEndian.Uint16(c)))
				copy(r[0x08:0x10], c[0x38:0x40]) // all of the room
				atomic.StoreUint32((*uint32)(unsafe.Pointer(&r[regs.ResponseTail])), phase)
				if next == size-1 {
					phase ^= 1 << 16
				}
			}
		}
	}
}

// BenchmarkNull is the driver's own cost of an operation, with so many
// callers at once: go test -bench Null -cpu 1 -benchmem ./quac100
func BenchmarkNull(b *testing.B) {
	for _, depth := range []int{1, 32, 1024} {
		for _, size := range []int{0, 1024} {
			b.Run(fmt.Sprintf("depth=%d/bytes=%d", depth, size), func(b *testing.B) { benchmarkNull(b, depth, size) })
		}
	}
}

func benchmarkNull(b *testing.B, depth, size int) {
	bus := newNullBus(b)
	c, err := quac100.Open(b.Context(), bus, quac100.WithRing(2048), quac100.WithWatchdog(1<<40))
	if err != nil {
		b.Fatal(err)
	}
	bus.take(b)
	var left atomic.Int64
	var all sync.WaitGroup
	run := func(n int) {
		left.Store(int64(n))
		for range depth {
			all.Go(func() {
				buf := make([]byte, size)
				for left.Add(-1) >= 0 {
					var err error
					if size == 0 {
						err = c.NOP(b.Context(), false)
					} else {
						err = c.Echo(b.Context(), buf, buf)
					}
					if err != nil {
						b.Error(err)
						return
					}
				}
			})
		}
		all.Wait()
	}
	run(8 * depth) // everything has its memory
	b.ReportAllocs()
	b.ResetTimer()
	before := processorTime(b)
	run(b.N)
	b.StopTimer()
	b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
	b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
	bus.null.Store(false)
	_ = c.Close()
}

// BenchmarkBatch is the same with one caller that announces so many at once.
func BenchmarkBatch(b *testing.B) {
	for _, depth := range []int{1, 32, 256} {
		b.Run(fmt.Sprintf("depth=%d", depth), func(b *testing.B) {
			bus := newNullBus(b)
			c, err := quac100.Open(b.Context(), bus, quac100.WithRing(2048), quac100.WithWatchdog(1<<40))
			if err != nil {
				b.Fatal(err)
			}
			bus.take(b)
			batch := c.NewBatch()
			run := func(n int) {
				for ; n > 0; n -= depth {
					batch.Reset()
					for range depth {
						batch.NOP()
					}
					if err := batch.Run(b.Context()); err != nil {
						b.Fatal(err)
					}
				}
			}
			run(depth)
			b.ReportAllocs()
			b.ResetTimer()
			before := processorTime(b)
			run(b.N)
			b.StopTimer()
			b.ReportMetric(float64(processorTime(b)-before)/float64(b.N), "cpu-ns/op")
			b.ReportMetric(float64(b.N)/b.Elapsed().Seconds(), "ops/s")
			bus.null.Store(false)
			_ = c.Close()
		})
	}
}
