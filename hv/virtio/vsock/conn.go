package vsock

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"
	"time"

	"quantavirt/hv/virtio"
)

// What a connection has to tell the guest, by urgency.
const (
	sendRequest = 1 << iota
	sendResponse
	sendCredit
	sendData // not set, but found: there is data and the guest has room
	sendShutdown
	askCredit
)

// conn is one connection. The device's lock guards all of it; its two goroutines hold
// it except while they read and write the socket.
type conn struct {
	dev   *Sockets
	key   ports
	sock  net.Conn    // nil while the host is being connected to
	timer *time.Timer // of a connection that the guest has not taken yet; may be nil

	established bool // both sides have agreed
	ended       bool
	listed      bool // is among dev.ready
	say         int
	changed     sync.Cond

	// To the guest.
	in       []byte // from the socket
	inEOF    bool
	told     bool   // that there is no more
	sent     uint32 // bytes ever sent
	peerRoom uint32 // buf_alloc of the guest
	peerRead uint32 // fwd_cnt of the guest
	asked    bool   // for credit, without an answer yet

	// From the guest.
	out        []byte // for the socket
	outEOF     bool
	forwarded  uint32 // bytes ever written to the socket
	advertised uint32 // forwarded, as the guest was last told
}

func newConn(d *Sockets, key ports, sock net.Conn) *conn {
	c := &conn{dev: d, key: key, sock: sock}
	c.changed.L = &d.mu
	return c
}

// end closes the socket and ends both goroutines.
func (c *conn) end() {
	c.ended = true
	if c.timer != nil {
		c.timer.Stop()
	}
	if c.sock != nil {
		c.sock.Close()
	}
	c.changed.Broadcast()
}

// tell puts something on the list of what the guest is to hear.
func (c *conn) tell(what int) {
	c.say |= what
	c.list()
}

// list puts the connection among those that have something for the guest.
func (c *conn) list() {
	if !c.listed && !c.ended && c.pending() != 0 {
		c.listed = true
		c.dev.ready = append(c.dev.ready, c)
	}
	if c.listed {
		c.dev.rx.Wake()
	}
}

// credit notes what the guest says of its buffer.
func (c *conn) credit(h *header) {
	c.peerRoom, c.peerRead = h.bufAlloc, h.fwdCnt
	c.asked = false
}

// room is how much the guest takes, by its own word. A word that makes no sense is none.
func (c *conn) room() uint32 {
	inFlight := c.sent - c.peerRead
	if inFlight > c.peerRoom {
		return 0
	}
	return c.peerRoom - inFlight
}

// pending is what the guest is to hear next, 0 for nothing.
func (c *conn) pending() int {
	switch {
	case c.say&sendRequest != 0:
		return sendRequest
	case c.say&sendResponse != 0:
		return sendResponse
	case !c.established:
		return 0
	case c.say&sendCredit != 0:
		return sendCredit
	case len(c.in) > 0 && c.room() > 0:
		return sendData
	case len(c.in) > 0 && !c.asked:
		return askCredit
	case c.inEOF && len(c.in) == 0 && !c.told:
		return sendShutdown
	}
	return 0
}

// packet makes the next packet, with up to room bytes.
func (c *conn) packet(room int) (header, []byte) {
	h := header{srcCID: hostCID, dstCID: c.dev.cid, srcPort: c.key.host, dstPort: c.key.guest, kind: typeStream,
		bufAlloc: bufferSize, fwdCnt: c.forwarded}
	c.advertised = c.forwarded
	var data []byte
	switch what := c.pending(); what {
	case sendRequest:
		h.op = opRequest
		c.say &^= what
	case sendResponse:
		h.op, c.established = opResponse, true
		c.say &^= what
	case sendCredit:
		h.op = opCreditUpdate
		c.say &^= what
	case sendData:
		n := min(len(c.in), room, int(c.room()))
		if n == 0 {
			h.op = opCreditUpdate // a buffer for a header only
			break
		}
		h.op, h.length = opData, uint32(n)
		data, c.in = c.in[:n:n], c.in[n:]
		c.sent += uint32(n)
		c.changed.Broadcast()
	case askCredit:
		h.op, c.asked = opCreditRequest, true
	case sendShutdown:
		h.op, h.flags, c.told = opShutdown, shutdownSend, true
		c.finish()
	}
	return h, data
}

// heed does what a packet of the guest says.
func (c *conn) heed(h *header, chain *virtio.Chain) {
	c.credit(h)
	switch h.op {
	case opResponse:
		if c.established || c.timer == nil {
			c.dev.kill(c)
			return
		}
		c.timer.Stop()
		c.established = true
		c.out = fmt.Appendf(c.out, "OK %d\n", c.key.host)
		c.forwarded -= uint32(len(c.out)) // what the guest did not send
		c.run()
	case opReset:
		c.dev.forget(c)
		return
	case opShutdown:
		c.shutdown(h.flags)
	case opData:
		c.take(h, chain)
	case opCreditUpdate:
	case opCreditRequest:
		c.say |= sendCredit
	default:
		c.dev.kill(c)
		return
	}
	c.list()
}

// take keeps data of the guest for the socket. More than it has credit for ends the
// connection, since that is what bounds the memory; the line "OK PORT" is not the guest's.
func (c *conn) take(h *header, chain *virtio.Chain) {
	if !c.established || c.outEOF || uint64(len(c.out))+uint64(h.length) > bufferSize+maxAsk {
		c.dev.kill(c)
		return
	}
	had := len(c.out)
	c.out = append(c.out, make([]byte, h.length)...)
	chain.CopyOut(c.out[had:], headerSize)
	c.changed.Broadcast()
}

// shutdown ends one direction or both.
func (c *conn) shutdown(flags uint32) {
	if flags&shutdownSend != 0 {
		c.outEOF = true
	}
	if flags&shutdownReceive != 0 {
		c.in, c.inEOF, c.told = nil, true, true
	}
	c.changed.Broadcast()
	c.finish()
}

// finish ends a connection that has nothing more to do in either direction. The guest
// waits for the reset (section 5.10.6.5).
func (c *conn) finish() {
	if c.outEOF && len(c.out) == 0 && c.inEOF && c.told {
		c.dev.kill(c)
	}
}

// run starts both goroutines; the lock is held.
func (c *conn) run() {
	sock := c.sock
	c.dev.wg.Go(func() { c.read(sock) })
	c.dev.wg.Go(func() { c.write(sock) })
}

// read brings what the socket has, as long as there is room for it.
func (c *conn) read(sock net.Conn) {
	buf := make([]byte, 16<<10)
	for {
		n, err := sock.Read(buf)
		c.dev.mu.Lock()
		if !c.ended && !c.told {
			c.in = append(c.in, buf[:n]...)
		}
		if err != nil {
			c.inEOF = true
			if !errors.Is(err, io.EOF) && !c.ended {
				c.dev.kill(c)
			}
		}
		c.list()
		for len(c.in) > bufferSize-len(buf) && !c.ended {
			c.changed.Wait()
		}
		over := c.ended || err != nil
		if over && !c.ended {
			c.finish()
		}
		c.dev.mu.Unlock()
		if over {
			return
		}
	}
}

// write brings what the guest sends to the socket.
func (c *conn) write(sock net.Conn) {
	var buf []byte
	for {
		c.dev.mu.Lock()
		for len(c.out) == 0 && !c.outEOF && !c.ended {
			c.changed.Wait()
		}
		if c.ended {
			c.dev.mu.Unlock()
			return
		}
		buf = append(buf[:0], c.out...)
		c.dev.mu.Unlock()
		_, err := sock.Write(buf)
		c.dev.mu.Lock()
		if c.ended {
			c.dev.mu.Unlock()
			return
		}
		// Only now is there room for more: what is being written counts as well.
		c.out = c.out[:copy(c.out, c.out[len(buf):])]
		c.forwarded += uint32(len(buf))
		over := len(c.out) == 0 && c.outEOF
		switch {
		case err != nil:
			c.dev.kill(c)
			over = true
		case over:
			if half, ok := sock.(interface{ CloseWrite() error }); ok {
				_ = half.CloseWrite()
			}
			c.finish()
		case c.forwarded-c.advertised >= bufferSize/2:
			c.tell(sendCredit)
		}
		c.dev.mu.Unlock()
		if over {
			return
		}
	}
}
