package model

import (
	"errors"
	"fmt"

	"quantavirt/quac100/regs"
)

// dmaState is what the DMA registers do not show.
type dmaState struct {
	busy int // accesses that the host is carrying out
}

// access is one DMA of the card.
type access struct {
	cmd   *command // nil for the rings
	gen   uint64
	write bool
	iova  uint64
	tag   uint32
	data  []byte
}

// live reports whether the access still matters.
func (c *Card) live(a *access) bool {
	return c.gen == a.gen && !c.stop && (a.cmd == nil || a.cmd.state != cmdAnswered)
}

// transfer carries out one DMA; called with the lock, which it gives up meanwhile. It waits while bus mastering or one of
// the DMA switches is off, and returns errDropped once a reset or the end of its command made it pointless.
func (c *Card) transfer(a *access) error {
	if len(a.data) == 0 {
		return nil
	}
	for c.live(a) && (!c.busOn() || c.faults.hang != HangNone) {
		c.wait(c.progress)
	}
	if !c.live(a) {
		return errDropped
	}
	addr, bits := c.translate(a.iova, uint64(len(a.data)))
	var err error
	if bits != 0 {
		err = fmt.Errorf("%#x: outside what the card may access", addr)
	} else {
		err = c.hostDMA(a, addr)
	}
	if err == nil {
		c.countDMA(a)
		return nil
	}
	if c.gen == a.gen {
		c.latchDMA(a, addr, bits, err)
	}
	return err
}

// hostDMA lets the host do the access, without the lock.
func (c *Card) hostDMA(a *access, addr uint64) error {
	c.dma.busy++
	host, fault := c.host, c.faults.dma
	c.unlock()
	var err error
	if fault != nil {
		err = fault(a.write, addr, len(a.data))
	}
	switch {
	case err != nil:
	case a.write:
		err = host.WriteDMA(addr, a.data)
	default:
		err = host.ReadDMA(addr, a.data)
	}
	c.lock()
	if c.dma.busy--; c.dma.busy == 0 {
		c.progress.Broadcast()
	}
	return err
}

// translate applies offset and window to an address; bits are those of DMA_ERROR when the access is refused.
func (c *Card) translate(iova, n uint64) (addr uint64, bits uint32) {
	if iova+n-1 < iova {
		return iova, regs.DMAErrLength
	}
	ctrl := c.get(regs.DMAXlatCtrl)
	if ctrl&regs.XlatOffset != 0 {
		iova += c.get64(regs.DMAXlatOffsetLo)
		if iova+n-1 < iova {
			return iova, regs.DMAErrLength
		}
	}
	if ctrl&regs.XlatWindow != 0 && (iova < c.get64(regs.DMAWinBaseLo) || iova+n-1 > c.get64(regs.DMAWinLimitLo)) {
		return iova, regs.DMAErrOutOfWindow
	}
	return iova, 0
}

func (c *Card) countDMA(a *access) {
	c.add64(regs.DMAXfersLo, 1)
	if a.write {
		c.add64(regs.DMAWrBytesLo, uint64(len(a.data)))
	} else {
		c.add64(regs.DMARdBytesLo, uint64(len(a.data)))
	}
}

// latchDMA keeps the first fault's address and tag until DMA_ERROR is 0 again.
func (c *Card) latchDMA(a *access, addr uint64, bits uint32, err error) {
	if a.write {
		bits |= regs.DMAErrWriteFault
	} else {
		bits |= regs.DMAErrReadFault
	}
	if errors.Is(err, ErrUnmapped) {
		bits |= regs.DMAErrUnmapped
	}
	old := c.get(regs.DMAError)
	if old != 0 {
		c.set(regs.DMAError, old|bits|regs.DMAErrMore)
		return
	}
	c.set(regs.DMAError, bits)
	c.set64(regs.DMAErrAddrLo, addr)
	c.set(regs.DMAErrTag, a.tag)
}

func (c *Card) dmaStatus() uint32 {
	var v uint32
	latched := c.get(regs.DMAError) != 0
	switch on := c.get(regs.DMAControl)&regs.DMAEnable != 0; {
	case c.dma.busy > 0:
		v = regs.DMARunning
	case latched:
		v = regs.DMAFailed
	case !on && c.queue.inflight > 0:
		v = regs.DMAStopped
	}
	if latched {
		v |= regs.DMALatched
	}
	return v
}

func (c *Card) writeDMA(r regs.Reg, v uint32) {
	switch r {
	case regs.DMAControl:
		if v&regs.DMAReset != 0 {
			if c.enabled(regs.CMDQCtrl) || c.enabled(regs.RSPQCtrl) {
				c.accessError(uint64(r))
			} else {
				c.dropAll() // nothing is queued with both rings off, but what drains ends here
			}
		}
		c.set(r, v&(regs.DMAEnable|regs.DMASG))
		c.wakeAll()
	case regs.DMAError:
		c.set(r, c.get(r)&^v)
		if c.get(r) == 0 {
			c.set64(regs.DMAErrAddrLo, 0)
			c.set(regs.DMAErrTag, 0)
		}
	default: // window and offset
		if c.enabled(regs.CMDQCtrl) || c.enabled(regs.RSPQCtrl) {
			c.accessError(uint64(r))
			return
		}
		if r == regs.DMAXlatCtrl {
			v &= regs.XlatWindow | regs.XlatOffset
		}
		c.set(r, v)
	}
}

// move is transfer for a command's data, without the lock held. A fault is the command's, and an event.
func (c *Card) move(m *command, write bool, iova uint64, data []byte) error {
	c.lock()
	defer c.unlock()
	err := c.transfer(&access{cmd: m, gen: m.gen, write: write, iova: iova, tag: m.Tag, data: data})
	if err == nil || errors.Is(err, errDropped) || m.gen != c.gen {
		return err
	}
	detail := regs.DetailSrcFault
	if write {
		detail = regs.DetailDstFault
	}
	c.fail(regs.ErrDMA, uint16(m.Opcode), detail, iova)
	c.raise(regs.CauseDMAError)
	return err
}

// segment is a piece of a command's buffer.
type segment struct {
	iova uint64
	n    uint32
}

var errSG = errors.New("bad scatter-gather list")

// gather returns the segments of a buffer. A list is read once, page by page, up to its last entry.
func (c *Card) gather(m *command, addr uint64, n uint32, sg bool) ([]segment, error) {
	if !sg {
		if n == 0 {
			return nil, nil
		}
		return []segment{{addr, n}}, nil
	}
	if addr%regs.SGAlign != 0 {
		return nil, errSG
	}
	var list []segment
	sum := uint64(0)
	for len(list) < regs.SGMax {
		room := (PageSize - int(addr%PageSize)) / regs.SGSize
		buf := make([]byte, min(room, regs.SGMax-len(list))*regs.SGSize)
		if err := c.move(m, false, addr, buf); err != nil {
			return nil, err
		}
		addr += uint64(len(buf))
		for ; len(buf) > 0; buf = buf[regs.SGSize:] {
			e, err := regs.ParseSG(buf)
			if err != nil || e.Len == 0 || e.Flags&^regs.SGLast != 0 {
				return nil, errSG
			}
			list = append(list, segment{e.Addr, e.Len})
			sum += uint64(e.Len)
			if e.Flags&regs.SGLast != 0 {
				if sum != uint64(n) {
					return nil, errSG
				}
				return list, nil
			}
		}
	}
	return nil, errSG
}

// load reads a buffer into the card, once.
func (c *Card) load(m *command, list []segment) ([]byte, error) {
	n := 0
	for _, s := range list {
		n += int(s.n)
	}
	buf := make([]byte, n)
	rest := buf
	for _, s := range list {
		if err := c.move(m, false, s.iova, rest[:s.n]); err != nil {
			return nil, err
		}
		rest = rest[s.n:]
	}
	return buf, nil
}

// store writes data to the front of a buffer.
func (c *Card) store(m *command, list []segment, data []byte) error {
	for _, s := range list {
		n := min(len(data), int(s.n))
		if n == 0 {
			break
		}
		if err := c.move(m, true, s.iova, data[:n]); err != nil {
			return err
		}
		data = data[n:]
	}
	return nil
}
