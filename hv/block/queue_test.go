package block

import (
	"bytes"
	"errors"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/block/uring"
	"quantavirt/internal/qverr"
)

const testDepth = 32

// testQueue is a queue with the eventfd it signals.
type testQueue struct {
	tb testing.TB
	Queue
	eventFD int
}

// queueKinds are the queues that a Raw may get.
var queueKinds = []string{"uring", "pool", "inline uring", "inline pool"}

func newTestQueue(tb testing.TB, kind string, d Device) *testQueue {
	tb.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC)
	if err != nil {
		tb.Fatal(err)
	}
	q := &testQueue{tb: tb, eventFD: fd}
	o := QueueOptions{Depth: testDepth, Threads: 4, EventFD: fd}
	if strings.HasSuffix(kind, "pool") {
		q.Queue = newPool(d, o)
	} else {
		ring, err := uring.New(testDepth, fd)
		if errors.Is(err, errors.ErrUnsupported) {
			tb.Skip(err)
		}
		if err != nil {
			tb.Fatal(err)
		}
		q.Queue = newRingQueue(d.(*Raw), ring, o)
	}
	if strings.HasPrefix(kind, "inline") {
		q.Queue = &inlineQueue{Queue: q.Queue, raw: d.(*Raw)}
	}
	tb.Cleanup(func() {
		q.Close()
		unix.Close(fd)
	})
	return q
}

// wait sleeps on the eventfd until a request is done.
func (q *testQueue) wait() *Request {
	q.tb.Helper()
	for {
		q.Disarm()
		if r := q.Done(); r != nil {
			return r
		}
		if q.Arm() {
			continue
		}
		var count [8]byte
		if _, err := unix.Read(q.eventFD, count[:]); err != nil && !errors.Is(err, unix.EINTR) {
			q.tb.Fatal(err)
		}
	}
}

func (q *testQueue) do(r *Request) error {
	q.tb.Helper()
	q.Submit(r)
	q.Commit()
	if got := q.wait(); got != r {
		q.tb.Fatalf("another request came back: %+v", got)
	}
	return r.Err
}

func tempRaw(tb testing.TB, size int64, o Options) *Raw {
	tb.Helper()
	f, err := os.OpenFile(filepath.Join(tb.TempDir(), "disk"), os.O_RDWR|os.O_CREATE, 0o600)
	if err != nil {
		tb.Fatal(err)
	}
	if err := f.Truncate(size); err != nil {
		tb.Fatal(err)
	}
	raw, err := OpenRaw(f, o)
	if err != nil {
		tb.Fatal(err)
	}
	tb.Cleanup(func() { raw.Close() })
	return raw
}

// TestQueueContent has four queues write, zero, discard and read a disk of which
// each has its quarter, many requests at a time, and compares with a copy in memory.
func TestQueueContent(t *testing.T) {
	for _, kind := range queueKinds {
		for _, cache := range []Cache{CacheWriteback, CacheWritethrough, CacheNone} {
			t.Run(fmt.Sprint(kind, " ", cache), func(t *testing.T) {
				const queues, part = 4, 256 << 10
				raw := tempRaw(t, queues*part, Options{Cache: cache})
				var wg sync.WaitGroup
				for i := range queues {
					q := newTestQueue(t, kind, raw)
					wg.Go(func() { exercise(t, q, int64(i*part), part, rand.New(rand.NewPCG(1, uint64(i)))) })
				}
				wg.Wait()
			})
		}
	}
}

// exercise does rounds of requests that do not overlap.
func exercise(t *testing.T, q *testQueue, base, size int64, rnd *rand.Rand) {
	want := make([]byte, size)
	for range 8 {
		step := size / testDepth
		pending := map[*Request]func(){}
		for i := range int64(testDepth) {
			off, n := i*step+rnd.Int64N(4)*SectorSize, (1+rnd.Int64N(4))*SectorSize
			part := want[off : off+n]
			r := &Request{Op: Op(rnd.IntN(5)), Off: base + off, N: n, Unmap: rnd.IntN(2) == 0, Durable: rnd.IntN(8) == 0}
			buf := make([]byte, n+1)[rnd.IntN(2):][:n] // O_DIRECT takes only some
			cut := rnd.Int64N(n)
			r.IOV = [][]byte{buf[:cut], nil, buf[cut:]}
			pending[r] = func() {}
			switch r.Op {
			case OpRead:
				pending[r] = func() {
					if !bytes.Equal(buf, part) {
						t.Errorf("read at %d differs", r.Off)
					}
				}
			case OpWrite:
				for i := range buf {
					buf[i] = byte(rnd.Uint32())
				}
				copy(part, buf)
			case OpDiscard: // a hole, on all file systems of the tests
				r.Durable = false
				clear(part)
			case OpWriteZeroes:
				clear(part)
			}
			q.Submit(r)
		}
		q.Commit()
		for len(pending) > 0 {
			r := q.wait()
			if r.Err != nil {
				t.Errorf("%+v: %v", r, r.Err)
			}
			pending[r]()
			delete(pending, r)
		}
	}
}

func TestQueueErrors(t *testing.T) {
	const size = 1 << 20
	for _, kind := range queueKinds {
		t.Run(kind, func(t *testing.T) {
			raw := tempRaw(t, size, Options{})
			q := newTestQueue(t, kind, raw)
			buf := [][]byte{make([]byte, 4096)}
			for _, tc := range []struct {
				name string
				req  Request
				want qverr.Code
			}{
				{"read past the end", Request{Op: OpRead, IOV: buf, Off: size - 512}, qverr.Inval},
				{"write before the beginning", Request{Op: OpWrite, IOV: buf, Off: -512}, qverr.Inval},
				{"discard past the end", Request{Op: OpDiscard, Off: size, N: 1}, qverr.Inval},
				{"an operation that is none", Request{Op: 77}, qverr.Unsupported},
				{"nothing", Request{Op: OpWrite, IOV: [][]byte{{}}}, 0},
				{"no range", Request{Op: OpWriteZeroes}, 0},
				{"again", Request{Op: OpRead, IOV: buf}, 0},
			} {
				if err := q.do(&tc.req); qverr.CodeOf(err) != tc.want {
					t.Errorf("%s: %v", tc.name, err)
				}
			}
			if err := raw.file.Truncate(4096); err != nil {
				t.Fatal(err)
			}
			if err := q.do(&Request{Op: OpRead, IOV: buf, Off: 8192}); qverr.CodeOf(err) != qverr.StrIO {
				t.Errorf("the file was cut: %v", err)
			}
			ro := tempRaw(t, size, Options{ReadOnly: true})
			q = newTestQueue(t, kind, ro)
			for _, op := range []Op{OpWrite, OpDiscard, OpWriteZeroes} {
				if err := q.do(&Request{Op: op, IOV: buf, N: 512}); qverr.CodeOf(err) != qverr.StrReadonly {
					t.Errorf("operation %d of a read-only disk: %v", op, err)
				}
			}
			if err := q.do(&Request{Op: OpFlush}); err != nil {
				t.Error(err)
			}
		})
	}
}

// TestQueueFull provokes ENOSPC: a full disk has its own code, whatever the way.
func TestQueueFull(t *testing.T) {
	for _, kind := range queueKinds {
		t.Run(kind, func(t *testing.T) {
			full, err := os.OpenFile("/dev/full", os.O_RDWR, 0)
			if err != nil {
				t.Skip(err)
			}
			defer full.Close()
			// Everything but the file is that of a disk.
			raw := &Raw{file: full, fd: int(full.Fd()), size: 1 << 20, align: 1}
			q := newTestQueue(t, kind, raw)
			if err := q.do(&Request{Op: OpWrite, IOV: [][]byte{make([]byte, 4096)}}); qverr.CodeOf(err) != qverr.StrFull {
				t.Error(err)
			}
		})
	}
}

// TestQueueNoZeroes has a file system that can neither punch nor zero.
func TestQueueNoZeroes(t *testing.T) {
	for _, kind := range queueKinds {
		t.Run(kind, func(t *testing.T) {
			raw := tempRaw(t, 1<<20, Options{})
			raw.noPunch.Store(true)
			raw.noZero.Store(true)
			q := newTestQueue(t, kind, raw)
			data, got := bytes.Repeat([]byte{0x5a}, 8192), make([]byte, 8192)
			for _, r := range []*Request{{Op: OpWrite, IOV: [][]byte{data}}, {Op: OpWriteZeroes, Off: 512, N: 4096, Unmap: true}, {Op: OpRead, IOV: [][]byte{got}}} {
				if err := q.do(r); err != nil {
					t.Fatal(err)
				}
			}
			clear(data[512 : 512+4096])
			if !bytes.Equal(got, data) {
				t.Error("the range is not zero, or more than it is")
			}
			if err := q.do(&Request{Op: OpDiscard, N: 4096}); qverr.CodeOf(err) != qverr.StrDiscard {
				t.Errorf("discard: %v", err)
			}
		})
	}
}

// BenchmarkQueue is one queue on a file in the page cache, as the guest's 4 KiB
// requests come, all of a batch at once. "direct" is no queue: one system call
// after the other.
func BenchmarkQueue(b *testing.B) {
	const size = 64 << 20
	raw := tempRaw(b, size, Options{})
	fill := make([]byte, 1<<20)
	for off := int64(0); off < size; off += int64(len(fill)) {
		if err := raw.WriteVec([][]byte{fill}, off); err != nil {
			b.Fatal(err)
		}
	}
	for _, op := range []Op{OpRead, OpWrite} {
		for _, depth := range []int{1, testDepth} {
			for _, kind := range append([]string{"direct"}, queueKinds...) {
				b.Run(fmt.Sprintf("%s/%s/%d", kind, [...]string{"read", "write"}[op], depth), func(b *testing.B) {
					benchmarkQueue(b, kind, raw, op, depth)
				})
			}
		}
	}
}

func benchmarkQueue(b *testing.B, kind string, raw *Raw, op Op, depth int) {
	var q *testQueue
	if kind != "direct" {
		q = newTestQueue(b, kind, raw)
	}
	reqs := make([]Request, depth)
	for i := range reqs {
		reqs[i] = Request{Op: op, IOV: [][]byte{make([]byte, 4096)}}
	}
	rnd := rand.New(rand.NewPCG(1, 2))
	b.ReportAllocs()
	b.SetBytes(4096)
	for i := 0; i < b.N; i += depth {
		for i := range reqs {
			reqs[i].Off = rnd.Int64N(raw.size/4096) * 4096
			if q == nil {
				if err := Perform(raw, &reqs[i]); err != nil {
					b.Fatal(err)
				}
				continue
			}
			q.Submit(&reqs[i])
		}
		if q == nil {
			continue
		}
		q.Commit()
		for range reqs {
			if r := q.wait(); r.Err != nil {
				b.Fatal(r.Err)
			}
		}
	}
}
