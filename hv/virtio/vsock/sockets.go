package vsock

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"sync"
	"time"

	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

const (
	// maxConns is how many connections a guest may have; with bufferSize it bounds what
	// they can hold: 16 MiB in each direction.
	maxConns = 256
	// bufferSize is how much of a connection waits here in each direction.
	bufferSize = 64 << 10
	// maxResets is how many refusals wait for the guest before its packets do.
	maxResets = 64
	// firstPort is where ports of the host's side begin, as Firecracker counts them.
	firstPort = 1 << 30
	// answerTime is how long the guest has to take a connection.
	answerTime = 10 * time.Second
	// askTime is how long a program of the host has to say which port it wants.
	askTime = 5 * time.Second
	// maxAsk is the longest line of such a program, "CONNECT 4294967295\n".
	maxAsk = 32
)

// Dialer connects to what serves a port of the host.
type Dialer func(port uint32) (net.Conn, error)

// Sockets is a vsock device for nodes without vhost-vsock: stream connections of the
// guest are UNIX sockets of the host, by the protocol of Firecracker. A program of the
// host connects to the listener and says "CONNECT PORT\n"; it reads "OK PORT\n" once
// the guest has taken it, or the end. What the guest connects to is up to a Dialer.
type Sockets struct {
	cid      uint64
	listener net.Listener
	dial     Dialer
	rx, tx   virtio.Worker
	wg       sync.WaitGroup // the goroutines of connections and of the listener

	mu       sync.Mutex  // guards what follows
	host     virtio.Host // nil while no driver has the device
	conns    map[ports]*conn
	ready    []*conn  // have something for the guest, each once
	resets   []header // refusals of what is no connection
	nextPort uint32
	asking   map[net.Conn]bool // programs that have not said yet which port they want
	closed   bool
}

// ports name a connection: the guest's and the host's.
type ports struct{ guest, host uint32 }

// NewSockets makes a device that serves listener, which it takes over, until Close.
func NewSockets(cid uint32, listener net.Listener, dial Dialer) *Sockets {
	d := &Sockets{cid: uint64(cid), listener: listener, dial: dial, conns: map[ports]*conn{},
		asking: map[net.Conn]bool{}, nextPort: firstPort}
	d.rx.Handle, d.rx.Ready = d.send, d.hasPackets
	d.tx.Handle, d.tx.Ready = d.receive, d.mayReceive
	d.wg.Go(d.accept)
	return d
}

// Close ends the listener and waits for all goroutines. The device must not be active.
func (d *Sockets) Close() {
	d.listener.Close()
	d.drop()
	d.mu.Lock()
	d.closed = true
	for sock := range d.asking {
		sock.Close()
	}
	d.mu.Unlock()
	d.wg.Wait()
}

// Type implements virtio.Device.
func (d *Sockets) Type() uint16 { return virtio.TypeVsock }

// Features implements virtio.Device: streams only.
func (d *Sockets) Features() uint64 { return 0 }

// QueueSizes implements virtio.Device.
func (d *Sockets) QueueSizes() []uint16 { return []uint16{queueSize, queueSize, queueSize} }

// Vectors implements virtio.VectorCounter.
func (d *Sockets) Vectors() int { return vectors }

// ReadConfig implements virtio.Device.
func (d *Sockets) ReadConfig(off uint32, p []byte) {
	var space [8]byte
	binary.LittleEndian.PutUint64(space[:], d.cid)
	virtio.ConfigBytes(space[:], off, p)
}

// WriteConfig implements virtio.Device.
func (d *Sockets) WriteConfig(uint32, []byte) {}

// Activate implements virtio.Device.
func (d *Sockets) Activate(_ uint64, queues []*virtio.Queue, host virtio.Host) error {
	if queues[0] == nil || queues[1] == nil {
		return qverr.New(qverr.Inval, "vsock: the driver left out a queue")
	}
	d.mu.Lock()
	d.host = host
	d.mu.Unlock()
	d.rx.Start(queues[0], host)
	d.tx.Start(queues[1], host)
	return nil
}

// Deactivate implements virtio.Device: all connections end.
func (d *Sockets) Deactivate() {
	d.tx.Stop()
	d.rx.Stop()
	d.drop()
}

// Pause implements virtio.Device.
func (d *Sockets) Pause() error {
	d.rx.Pause()
	d.tx.Pause()
	return nil
}

// Resume implements virtio.Device.
func (d *Sockets) Resume() error {
	d.rx.Resume()
	d.tx.Resume()
	return nil
}

// drop ends all connections without a word to the guest.
func (d *Sockets) drop() {
	d.mu.Lock()
	defer d.mu.Unlock()
	for _, c := range d.conns {
		c.end()
	}
	clear(d.conns)
	d.host, d.ready, d.resets = nil, nil, nil
}

// accept takes what programs of the host want of the guest.
func (d *Sockets) accept() {
	for {
		sock, err := d.listener.Accept()
		if err != nil {
			if errors.Is(err, net.ErrClosed) {
				return
			}
			// Out of descriptors, most likely: some are closed again as connections end.
			<-time.After(100 * time.Millisecond)
			continue
		}
		d.wg.Go(func() { d.connectGuest(sock) })
	}
}

// connectGuest reads which port sock is for and asks the guest.
func (d *Sockets) connectGuest(sock net.Conn) {
	d.mu.Lock()
	d.asking[sock] = true
	if d.closed {
		sock.Close()
	}
	d.mu.Unlock()
	port, err := readAsk(sock)
	d.mu.Lock()
	defer d.mu.Unlock()
	delete(d.asking, sock)
	if err != nil || d.host == nil || len(d.conns) >= maxConns {
		sock.Close()
		return
	}
	key := ports{guest: port, host: d.freePort(port)}
	c := newConn(d, key, sock)
	c.timer = time.AfterFunc(answerTime, func() {
		d.mu.Lock()
		defer d.mu.Unlock()
		if !c.established {
			d.kill(c)
		}
	})
	d.conns[key] = c
	c.tell(sendRequest)
}

// freePort finds a port of the host that is not used with the guest's port; the lock is
// held, and there are more ports than connections.
func (d *Sockets) freePort(guest uint32) uint32 {
	for {
		port := d.nextPort
		if d.nextPort++; d.nextPort < firstPort {
			d.nextPort = firstPort
		}
		if d.conns[ports{guest, port}] == nil {
			return port
		}
	}
}

// readAsk reads "CONNECT PORT\n", not a byte more.
func readAsk(sock net.Conn) (port uint32, err error) {
	if err := sock.SetReadDeadline(time.Now().Add(askTime)); err != nil {
		return 0, err
	}
	var line []byte
	one := make([]byte, 1)
	for len(line) == 0 || line[len(line)-1] != '\n' {
		if len(line) == maxAsk {
			return 0, errors.New("a line too long")
		}
		if _, err := sock.Read(one); err != nil {
			return 0, err
		}
		line = append(line, one[0])
	}
	if _, err := fmt.Sscanf(string(line), "CONNECT %d\n", &port); err != nil {
		return 0, err
	}
	return port, sock.SetReadDeadline(time.Time{})
}

// mayReceive holds the guest's packets back while it does not read what it is told.
func (d *Sockets) mayReceive() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.resets) < maxResets
}

// receive takes a packet of the guest.
func (d *Sockets) receive(chain *virtio.Chain) (uint32, error) {
	var raw [headerSize]byte
	if chain.CopyOut(raw[:], 0) < headerSize {
		return 0, fmt.Errorf("%w: vsock: a packet without a header", virtio.ErrDriver)
	}
	var h header
	h.decode(&raw) // copied once: what is checked is what is used
	if uint64(h.length) > uint64(virtio.Len(chain.Read)-headerSize) {
		return 0, fmt.Errorf("%w: vsock: a packet says %d bytes and has %d", virtio.ErrDriver, h.length, virtio.Len(chain.Read)-headerSize)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	if h.srcCID != d.cid || h.dstCID != hostCID {
		return 0, nil // nobody else is reached, and nobody is impersonated
	}
	key := ports{guest: h.srcPort, host: h.dstPort}
	c := d.conns[key]
	switch {
	case h.kind != typeStream:
		d.refuse(&h)
	case c == nil && h.op == opRequest && len(d.conns) < maxConns:
		d.connectHost(key, &h)
	case c == nil && h.op != opReset:
		d.refuse(&h)
	case c == nil:
	default:
		c.heed(&h, chain)
	}
	return 0, nil
}

// refuse answers with a reset; the lock is held.
func (d *Sockets) refuse(h *header) {
	d.resets = append(d.resets, header{srcCID: hostCID, dstCID: d.cid, srcPort: h.dstPort, dstPort: h.srcPort, kind: h.kind, op: opReset})
	d.rx.Wake()
}

// connectHost makes a connection that the guest wants; the lock is held.
func (d *Sockets) connectHost(key ports, h *header) {
	c := newConn(d, key, nil)
	c.credit(h)
	d.conns[key] = c
	d.wg.Go(func() {
		sock, err := d.dial(key.host)
		d.mu.Lock()
		defer d.mu.Unlock()
		switch {
		case c.ended && err == nil:
			sock.Close()
		case c.ended:
		case err != nil:
			d.kill(c)
		default:
			c.sock = sock
			c.tell(sendResponse)
			c.run()
		}
	})
}

// kill ends a connection and tells the guest; the lock is held.
func (d *Sockets) kill(c *conn) {
	if c.ended {
		return
	}
	c.end()
	delete(d.conns, c.key)
	d.refuse(&header{srcPort: c.key.guest, dstPort: c.key.host, kind: typeStream})
}

// forget ends a connection of which the guest knows that it is over; the lock is held.
func (d *Sockets) forget(c *conn) {
	c.end()
	delete(d.conns, c.key)
}

func (d *Sockets) hasPackets() bool {
	d.mu.Lock()
	defer d.mu.Unlock()
	return len(d.resets) > 0 || d.firstReady() != nil
}

// firstReady is the connection whose turn it is, or nil; those that have nothing any
// more are dropped. The lock is held.
func (d *Sockets) firstReady() *conn {
	for len(d.ready) > 0 {
		if c := d.ready[0]; !c.ended && c.pending() != 0 {
			return c
		}
		d.ready[0].listed = false
		d.ready = d.ready[1:]
	}
	return nil
}

// send gives the guest one packet.
func (d *Sockets) send(chain *virtio.Chain) (uint32, error) {
	room := virtio.Len(chain.Write)
	if room < headerSize {
		return 0, fmt.Errorf("%w: vsock: a buffer of %d bytes", virtio.ErrDriver, room)
	}
	d.mu.Lock()
	var h header
	var data []byte
	if len(d.resets) > 0 {
		h = d.resets[0]
		d.resets = d.resets[1:]
	} else if c := d.firstReady(); c != nil {
		h, data = c.packet(room - headerSize)
		// The others come first now.
		d.ready = append(d.ready[1:], c)
	} else {
		d.mu.Unlock()
		return 0, nil // it ended after Ready looked; the driver ignores a buffer without a header
	}
	var raw [headerSize]byte
	h.encode(&raw)
	n := chain.CopyIn(raw[:]) + copyAt(chain.Write, headerSize, data)
	d.mu.Unlock()
	d.tx.Wake() // it may have waited for room among the resets
	return uint32(n), nil
}

// copyAt copies p to byte off of buffers on.
func copyAt(buffers [][]byte, off int, p []byte) int {
	n := 0
	for _, b := range buffers {
		if off >= len(b) {
			off -= len(b)
			continue
		}
		n += copy(b[off:], p[n:])
		off = 0
	}
	return n
}
