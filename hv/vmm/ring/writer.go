package ring

import (
	"context"
	"fmt"
	"io"
	"os"
	"sync"
	"time"

	"golang.org/x/time/rate"
)

// maxPending is how much may wait to be written to the file.
const maxPending = 64 << 10

// storage is a file, or memory for a console that is not kept.
type storage interface {
	io.ReaderAt
	io.WriterAt
}

// Ring is a ring that is written and followed. Its methods may be called from
// several goroutines.
type Ring struct {
	store storage
	size  int64
	wg    sync.WaitGroup

	mu      sync.Mutex
	cond    *sync.Cond    // pending or closed changed: for Write and the flusher
	change  chan struct{} // closed and replaced when pos changes: for followers
	pending []byte        // written by Write, not yet in the file
	pos     uint64        // bytes ever written to the file
	broken  bool          // the file cannot be written: bytes are dropped
	closed  bool
	done    bool // and the flusher has ended: pos is the last

	quota   *rate.Limiter // of bytes, taken by the quantum
	credit  int           // what is left of the quantum
	dropped uint64        // bytes beyond the quota, ever
	unsaid  uint64        // of these, not told in the ring yet
}

// How much a guest may print: Rate bytes a second after Burst at once. It keeps a
// guest that prints without end from keeping the disk busy. What is more is dropped,
// a quantum at least, so that what comes through are whole pieces of text.
const (
	Rate    = 1 << 20
	Burst   = 4 << 20
	quantum = 64 << 10
)

// Open continues the ring in a file made by Create. It takes the file over.
func Open(f *os.File) (*Ring, error) {
	size, pos, err := readHeader(f)
	if err != nil {
		return nil, err
	}
	return start(f, size, pos), nil
}

// NewMemory makes a ring that is not kept.
func NewMemory(size int64) *Ring { return start(&memoryStore{}, size, 0) }

func start(s storage, size int64, pos uint64) *Ring {
	r := &Ring{store: s, size: size, pos: pos, change: make(chan struct{}), quota: rate.NewLimiter(Rate, Burst)}
	r.cond = sync.NewCond(&r.mu)
	r.wg.Go(r.flush)
	return r
}

// Write appends p, or as much of it as the guest may print now. It returns before p
// is in the file; it waits only while the file is too slow for what is printed. It
// never fails: a console that cannot be kept must not stop its guest.
func (r *Ring) Write(p []byte) (int, error) {
	r.mu.Lock()
	defer r.mu.Unlock()
	for rest := p; len(rest) > 0; {
		if r.credit == 0 && !r.renew() {
			r.dropped += uint64(len(rest))
			r.unsaid += uint64(len(rest))
			break
		}
		n := min(len(rest), r.credit)
		r.credit -= n
		r.append(rest[:n])
		rest = rest[n:]
	}
	return len(p), nil
}

// renew takes the next quantum, and tells in the ring what was dropped before it.
// The lock is held.
func (r *Ring) renew() bool {
	if !r.quota.AllowN(time.Now(), quantum) {
		return false
	}
	r.credit = quantum
	if r.unsaid > 0 {
		r.append(fmt.Appendf(nil, "\r\n[%d bytes were dropped: more than %d KiB a second]\r\n", r.unsaid, Rate>>10))
		r.unsaid = 0
	}
	return true
}

// append waits for room and adds p to what is pending. The lock is held.
func (r *Ring) append(p []byte) {
	for len(p) > 0 {
		for len(r.pending) == maxPending && !r.closed && !r.broken {
			r.cond.Wait()
		}
		if r.closed || r.broken {
			return
		}
		n := min(len(p), maxPending-len(r.pending))
		r.pending = append(r.pending, p[:n]...)
		p = p[n:]
		r.cond.Broadcast()
	}
}

// Written counts the bytes that are in the ring or were, over all processes.
func (r *Ring) Written() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.pos + uint64(len(r.pending))
}

// Dropped counts the bytes beyond the quota.
func (r *Ring) Dropped() uint64 {
	r.mu.Lock()
	defer r.mu.Unlock()
	return r.dropped
}

// flush moves what is pending into the file: bytes first, then the header that
// counts them.
func (r *Ring) flush() {
	var data []byte
	r.mu.Lock()
	defer r.mu.Unlock()
	for {
		for len(r.pending) == 0 && !r.closed {
			r.cond.Wait()
		}
		if len(r.pending) == 0 {
			return
		}
		data, r.pending = r.pending, data[:0]
		pos := r.pos
		r.cond.Broadcast()
		r.mu.Unlock()
		err := writeCircle(r.store, r.size, pos, data)
		if err == nil {
			err = writeHeader(r.store, r.size, pos+uint64(len(data)))
		}
		r.mu.Lock()
		r.pos, r.broken = pos+uint64(len(data)), err != nil
		r.announce()
		r.cond.Broadcast()
	}
}

// announce wakes all followers. The lock is held.
func (r *Ring) announce() {
	close(r.change)
	r.change = make(chan struct{})
}

// Close writes what is pending and ends all followers once they have read it.
func (r *Ring) Close() {
	r.mu.Lock()
	r.closed = true
	r.cond.Broadcast()
	r.mu.Unlock()
	r.wg.Wait()
	r.mu.Lock()
	defer r.mu.Unlock()
	r.done = true
	r.announce()
}

// Follower reads the ring from a place on. A follower that is too slow misses
// what was overwritten; it never holds the writer up.
type Follower struct {
	ring *Ring
	next uint64
}

// Follow starts at the oldest byte that is kept.
func (r *Ring) Follow() *Follower {
	r.mu.Lock()
	defer r.mu.Unlock()
	f := &Follower{ring: r}
	if r.pos > uint64(r.size) {
		f.next = r.pos - uint64(r.size)
	}
	return f
}

// Read waits until there is something to read. It returns io.EOF when the ring
// was closed and all of it was read.
func (f *Follower) Read(ctx context.Context, p []byte) (int, error) {
	r := f.ring
	for {
		r.mu.Lock()
		pos, change, done := r.pos, r.change, r.done
		r.mu.Unlock()
		if n, err := f.take(p, pos); n > 0 || err != nil {
			return n, err
		}
		if done {
			return 0, io.EOF
		}
		select {
		case <-change:
		case <-ctx.Done():
			return 0, ctx.Err()
		}
	}
}

// take reads what there is up to pos.
func (f *Follower) take(p []byte, pos uint64) (int, error) {
	// What the flusher writes now may already cover the oldest maxPending bytes.
	oldest := uint64(0)
	if keep := uint64(f.ring.size); pos > keep {
		oldest = pos - keep
	}
	f.next = max(f.next, oldest)
	n := min(uint64(len(p)), pos-f.next)
	if n == 0 {
		return 0, nil
	}
	if err := readCircle(f.ring.store, f.ring.size, f.next, p[:n]); err != nil {
		return 0, err
	}
	f.next += n
	return int(n), nil
}

// Snapshot returns what is kept, oldest byte first.
func (r *Ring) Snapshot() ([]byte, error) {
	f := r.Follow()
	r.mu.Lock()
	pos := r.pos
	r.mu.Unlock()
	data := make([]byte, pos-f.next)
	n, err := f.take(data, pos)
	return data[:n], err
}

// memoryStore is a file in memory that grows as it is written.
type memoryStore struct {
	mu   sync.RWMutex
	data []byte
}

func (m *memoryStore) ReadAt(p []byte, off int64) (int, error) {
	m.mu.RLock()
	defer m.mu.RUnlock()
	if off >= int64(len(m.data)) {
		return 0, io.EOF
	}
	n := copy(p, m.data[off:])
	if n < len(p) {
		return n, io.EOF
	}
	return n, nil
}

func (m *memoryStore) WriteAt(p []byte, off int64) (int, error) {
	m.mu.Lock()
	defer m.mu.Unlock()
	if need := off + int64(len(p)); need > int64(len(m.data)) {
		m.data = append(m.data, make([]byte, need-int64(len(m.data)))...)
	}
	return copy(m.data[off:], p), nil
}
