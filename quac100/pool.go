package quac100

import (
	"context"
	"sync"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// DMA memory comes in blocks of three sizes. A request whose buffers fit into
// one block together gets one; a larger one gets a scatter-gather list of the
// largest blocks for each of its buffers: 256 of them are the 16 MiB that a
// buffer may have, and their list fills one page.
const (
	blockClasses = 3
	lineSize     = 64 // alignment that the card likes
)

var blockSize = [blockClasses]int{4 << 10, 16 << 10, 64 << 10}

// chunkSize is what the pool grows by.
const chunkSize = 256 << 10

type block struct {
	Buffer
	class int
}

// memory is what a slot has of the pool.
type memory struct {
	one  block
	at   [4]int  // offsets of the buffers in it
	used int     // bytes in it to be wiped
	many []block // or lists and their blocks, in the order of the buffers
	size [4]int  // bytes of each buffer
}

// pool hands out DMA memory, which is never on the Go heap: pages of the bus.
// What is given back is wiped.
type pool struct {
	bus   Bus
	limit int
	ring  *ring // to stop waiting when the card is given up
	big   chan struct{}

	idle [blockClasses]chan block

	mu     sync.Mutex
	chunks []Buffer
	size   int
}

func newPool(bus Bus, limit int) (*pool, error) {
	p := &pool{bus: bus, limit: max(limit, blockClasses*chunkSize), big: make(chan struct{}, 1)}
	for c := range blockClasses {
		p.idle[c] = make(chan block, p.limit/blockSize[c])
	}
	return p, p.grow(0)
}

// grow adds a chunk of blocks of a class. Errors are of the bus; errFull at
// the limit.
func (p *pool) grow(class int) error {
	p.mu.Lock()
	defer p.mu.Unlock()
	if p.size+chunkSize > p.limit {
		return errFull
	}
	b, err := p.bus.AllocDMA(chunkSize)
	if err != nil {
		return err
	}
	p.size += chunkSize
	p.chunks = append(p.chunks, b)
	n := blockSize[class]
	for off := 0; off < chunkSize; off += n {
		p.idle[class] <- block{Buffer{Bytes: b.Bytes[off : off+n : off+n], IOVA: b.IOVA + uint64(off)}, class}
	}
	return nil
}

var errFull = qverr.New(qverr.NoMem, "the DMA pool has reached its limit")

// get returns a block, of a larger class if the own one has none and may not
// grow. It waits for one as long as ctx allows.
func (p *pool) get(ctx context.Context, class int) (block, error) {
	for c := class; c < blockClasses; c++ {
		select {
		case b := <-p.idle[c]:
			return b, nil
		default:
		}
		if c == class {
			for p.grow(class) == nil {
				select {
				case b := <-p.idle[c]:
					return b, nil
				default: // somebody was faster
				}
			}
		}
	}
	select {
	case b := <-p.idle[class]:
		return b, nil
	case <-p.ring.downs():
		return block{}, p.ring.why()
	case <-ctx.Done():
		return block{}, qverr.New(qverr.Timeout, "waiting for DMA memory: %w", ctx.Err())
	}
}

func (p *pool) put(b block, used int) {
	clear(b.Bytes[:used])
	p.idle[b.class] <- b
}

// place gives the slot memory, copies the inputs there and completes the
// command with addresses and lengths. Inval for what is longer than the card
// takes.
func (p *pool) place(ctx context.Context, s *slot, q *request) error {
	s.cmd = q.cmd
	m := &s.mem
	m.size = [4]int{pieces(&q.src0), pieces(&q.src1), len(q.dst0), len(q.dst1)}
	total := 0
	for i, n := range m.size {
		if n > regs.MaxTransfer {
			return qverr.New(qverr.Inval, "a buffer of %d bytes is longer than the card takes", n)
		}
		m.at[i] = total
		total += (n + lineSize - 1) &^ (lineSize - 1)
	}
	if total == 0 {
		return nil
	}
	if total > blockSize[blockClasses-1] {
		return p.placeBig(ctx, s, q)
	}
	class := 0
	for blockSize[class] < total {
		class++
	}
	b, err := p.get(ctx, class)
	if err != nil {
		return err
	}
	m.one, m.used = b, total
	var addr [4]uint64
	for i, n := range m.size {
		if n > 0 {
			addr[i] = b.IOVA + uint64(m.at[i])
		}
	}
	gather(b.Bytes[m.at[0]:], &q.src0)
	gather(b.Bytes[m.at[1]:], &q.src1)
	s.address(addr)
	return nil
}

// gather lays pieces one after the other.
func gather(to []byte, p *[3][]byte) {
	for _, x := range p {
		to = to[copy(to, x):]
	}
}

// address fills in what the command says of its buffers. Fields of buffers
// that are not used stay as they are: one opcode has an argument there.
func (s *slot) address(addr [4]uint64) {
	c := &s.cmd
	for i, f := range [4]struct {
		at  *uint64
		len *uint32
	}{{&c.Src0, &c.Src0Len}, {&c.Src1, &c.Src1Len}, {&c.Dst0, &c.Dst0Len}, {&c.Dst1, &c.Dst1Len}} {
		if n := s.mem.size[i]; n > 0 {
			*f.at, *f.len = addr[i], uint32(n)
		}
	}
}

// placeBig makes lists. One request at a time collects its blocks, so that two
// can not wait for each other's; what is in flight gives back without waiting.
func (p *pool) placeBig(ctx context.Context, s *slot, q *request) error {
	select {
	case p.big <- struct{}{}:
	case <-ctx.Done():
		return qverr.New(qverr.Timeout, "waiting for DMA memory: %w", ctx.Err())
	}
	defer func() { <-p.big }()
	m := &s.mem
	var addr [4]uint64
	for i, n := range m.size {
		if n == 0 {
			continue
		}
		list, err := p.list(ctx, m, n)
		if err != nil {
			p.free(m)
			return err
		}
		addr[i] = list
		s.cmd.Flags |= regs.FlagSGSrc0 << i
	}
	at := 0
	for i, n := range m.size {
		if n == 0 {
			continue
		}
		blocks := m.many[at+1:][:parts(n)]
		at += 1 + parts(n)
		switch i {
		case 0:
			scatter(blocks, &q.src0)
		case 1:
			scatter(blocks, &q.src1)
		}
	}
	s.address(addr)
	return nil
}

// parts is the number of blocks that n bytes take in a list.
func parts(n int) int {
	return (n + blockSize[blockClasses-1] - 1) / blockSize[blockClasses-1]
}

// list collects the blocks of a buffer of n bytes and returns the address of
// their list.
func (p *pool) list(ctx context.Context, m *memory, n int) (uint64, error) {
	table, err := p.get(ctx, 0)
	if err != nil {
		return 0, err
	}
	m.many = append(m.many, table)
	for i, count := 0, parts(n); i < count; i++ {
		b, err := p.get(ctx, blockClasses-1)
		if err != nil {
			return 0, err
		}
		m.many = append(m.many, b)
		e := regs.SG{Addr: b.IOVA, Len: uint32(min(n, len(b.Bytes)))}
		if i == count-1 {
			e.Flags = regs.SGLast
		}
		e.Put(table.Bytes[i*regs.SGSize:])
		n -= int(e.Len)
	}
	return table.IOVA, nil
}

// scatter copies pieces into blocks.
func scatter(blocks []block, p *[3][]byte) {
	to := blocks[0].Bytes
	for _, x := range p {
		for len(x) > 0 {
			if len(to) == 0 {
				blocks = blocks[1:]
				to = blocks[0].Bytes
			}
			n := copy(to, x)
			x, to = x[n:], to[n:]
		}
	}
}

// collect copies the outputs to the caller.
func (p *pool) collect(s *slot, q *request) {
	m := &s.mem
	if len(m.many) == 0 {
		copy(q.dst0, m.one.Bytes[min(m.at[2], len(m.one.Bytes)):])
		copy(q.dst1, m.one.Bytes[min(m.at[3], len(m.one.Bytes)):])
		return
	}
	at := 0
	for i, n := range m.size {
		if n == 0 {
			continue
		}
		blocks := m.many[at+1:][:parts(n)]
		at += 1 + parts(n)
		dst := q.dst0
		switch i {
		case 0, 1:
			continue
		case 3:
			dst = q.dst1
		}
		for _, b := range blocks {
			dst = dst[copy(dst, b.Bytes):]
		}
	}
}

// free wipes and gives back.
func (p *pool) free(m *memory) {
	if m.one.Bytes != nil {
		p.put(m.one, m.used)
		m.one = block{}
	}
	for _, b := range m.many {
		p.put(b, len(b.Bytes))
	}
	m.many = m.many[:0]
}

func (p *pool) close() {
	p.mu.Lock()
	defer p.mu.Unlock()
	for _, b := range p.chunks {
		_ = p.bus.FreeDMA(b)
	}
	p.chunks, p.size = nil, 0
}
