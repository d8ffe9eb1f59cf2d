package vfiouser

import (
	"errors"
	"fmt"
	"net"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/quac100/model"
)

// Client is the other side of the protocol, as far as tests and tools without QEMU need it. Its methods may be called from
// any goroutine.
type Client struct {
	c    conn
	done chan struct{}

	mu      sync.Mutex
	nextID  uint16
	replies map[uint16]chan reply
	err     error
	remote  map[uint64]remoteMemory // served by messages
	refused []uint64                // addresses that the card asked for by message and that are nobody's, at most 64
}

type remoteMemory struct {
	mem   []byte
	flags uint32
}

// Dial connects to a server and agrees on the version.
func Dial(path string) (*Client, error) {
	uc, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	return NewClient(uc)
}

// NewClient speaks to a server over a connection, which it closes in the end.
func NewClient(uc *net.UnixConn) (*Client, error) {
	k := &Client{c: conn{UnixConn: uc}, done: make(chan struct{}), replies: make(map[uint16]chan reply), remote: make(map[uint64]remoteMemory)}
	go k.loop()
	v := version{caps: capabilities{MaxMsgFDs: maxFDs, MaxDataXfer: maxData, MaxDMAMaps: maxDMAMaps, PageSizes: 4096}}
	out, err := k.call(cmdVersion, v.append(nil))
	if err == nil {
		_, err = parseVersion(out)
	}
	if err != nil {
		k.Close()
		return nil, fmt.Errorf("agree on a version: %w", err)
	}
	return k, nil
}

// Close ends the connection.
func (k *Client) Close() error {
	err := k.c.Close()
	<-k.done
	return err
}

// Done is closed when the connection has ended.
func (k *Client) Done() <-chan struct{} { return k.done }

func (k *Client) loop() {
	defer close(k.done)
	for {
		m, err := k.c.receive()
		if err != nil {
			k.end(err)
			return
		}
		if m.flags&typeMask == typeReply {
			k.deliver(m)
		} else {
			k.serve(m)
		}
		m.closeFDs()
	}
}

func (k *Client) end(err error) {
	k.mu.Lock()
	defer k.mu.Unlock()
	k.err = err
	for id, c := range k.replies {
		close(c)
		delete(k.replies, id)
	}
}

func (k *Client) deliver(m *message) {
	k.mu.Lock()
	defer k.mu.Unlock()
	if c := k.replies[m.id]; c != nil {
		delete(k.replies, m.id)
		c <- reply{m.errno, m.flags&flagError != 0, append([]byte(nil), m.payload...)}
	}
}

// serve answers the server's DMA messages from remote memory.
func (k *Client) serve(m *message) {
	h := header{id: m.id, cmd: m.cmd, flags: typeReply}
	out, err := k.access(m)
	if err != nil {
		h.flags, h.errno = h.flags|flagError, uint32(syscall.ENODEV)
	}
	_ = k.c.write(h, out) // a dead connection shows at the next receive
}

func (k *Client) access(m *message) ([]byte, error) {
	d, err := parseDMAIO(m.payload)
	if err != nil {
		return nil, err
	}
	k.mu.Lock()
	defer k.mu.Unlock()
	mem := k.find(d, m.cmd == cmdDMAWrite)
	switch {
	case mem == nil, m.cmd == cmdDMAWrite && len(d.data) < len(mem):
		if len(k.refused) < 64 {
			k.refused = append(k.refused, d.iova)
		}
		return nil, model.ErrUnmapped
	case m.cmd == cmdDMAWrite:
		model.StoreDMA(mem, d.data)
		d.data = nil
	default:
		d.data = mem
	}
	return d.append(nil), nil
}

func (k *Client) find(d dmaIO, write bool) []byte {
	for base, r := range k.remote {
		n := uint64(len(r.mem))
		if write && r.flags&mapWrite == 0 || !write && r.flags&mapRead == 0 {
			continue
		}
		if d.iova >= base && d.iova-base < n && d.count <= n-(d.iova-base) {
			return r.mem[d.iova-base:][:d.count]
		}
	}
	return nil
}

// post sends a request without waiting for an answer, and asks for none.
func (k *Client) post(cmd command, payload []byte) error {
	return k.c.write(header{cmd: cmd, flags: flagNoReply}, payload)
}

// call sends a request and waits for its answer.
func (k *Client) call(cmd command, payload []byte, fds ...int) ([]byte, error) {
	k.mu.Lock()
	if k.err != nil {
		k.mu.Unlock()
		return nil, k.err
	}
	k.nextID++
	id, c := k.nextID, make(chan reply, 1)
	k.replies[id] = c
	k.mu.Unlock()
	if err := k.c.write(header{id: id, cmd: cmd}, payload, fds...); err != nil {
		return nil, err
	}
	r, ok := <-c
	switch {
	case !ok:
		return nil, errors.New("the server has left")
	case r.failed:
		return nil, fmt.Errorf("command %d: %w", cmd, syscall.Errno(r.errno))
	}
	return r.data, nil
}

func (k *Client) readRegion(region uint32, off uint64, p []byte) error {
	r := regionIO{offset: off, region: region, count: uint32(len(p))}
	out, err := k.call(cmdRegionRead, r.append(nil))
	if err != nil {
		return err
	}
	r, err = parseRegionIO(out)
	if err != nil || len(r.data) != len(p) {
		return fmt.Errorf("read %d bytes: %d came", len(p), len(out))
	}
	copy(p, r.data)
	return nil
}

// Read reads BAR0.
func (k *Client) Read(off uint64, p []byte) error { return k.readRegion(regionBAR0, off, p) }

// Write writes BAR0 without waiting, as QEMU does.
func (k *Client) Write(off uint64, p []byte) error {
	r := regionIO{offset: off, region: regionBAR0, count: uint32(len(p)), data: p}
	return k.post(cmdRegionWrite, r.append(nil))
}

// ReadConfig reads the configuration space.
func (k *Client) ReadConfig(off uint64, p []byte) error { return k.readRegion(regionConfig, off, p) }

// WriteConfig writes the configuration space.
func (k *Client) WriteConfig(off uint64, p []byte) error {
	r := regionIO{offset: off, region: regionConfig, count: uint32(len(p)), data: p}
	_, err := k.call(cmdRegionWrite, r.append(nil))
	return err
}

func mapFlags(read, write bool) (f uint32) {
	if read {
		f |= mapRead
	}
	if write {
		f |= mapWrite
	}
	return f
}

// MapFD lets the card reach part of a file at iova.
func (k *Client) MapFD(iova, size uint64, fd int, offset uint64, read, write bool) error {
	m := dmaMap{flags: mapFlags(read, write), offset: offset, iova: iova, length: size}
	_, err := k.call(cmdDMAMap, m.append(nil), fd)
	return err
}

// MapRemote lets the card reach mem at iova by messages, as QEMU does for memory that is not shared.
func (k *Client) MapRemote(iova uint64, mem []byte, read, write bool) error {
	m := dmaMap{flags: mapFlags(read, write), iova: iova, length: uint64(len(mem))}
	k.mu.Lock()
	k.remote[iova] = remoteMemory{mem, m.flags}
	k.mu.Unlock()
	_, err := k.call(cmdDMAMap, m.append(nil))
	return err
}

// Unmap takes a range from the card.
func (k *Client) Unmap(iova, size uint64) error {
	u := dmaUnmap{iova: iova, length: size}
	_, err := k.call(cmdDMAUnmap, u.append(nil))
	k.mu.Lock()
	for base := range k.remote {
		if base-iova < size {
			delete(k.remote, base)
		}
	}
	k.mu.Unlock()
	return err
}

// SetVector assigns an eventfd to an MSI-X vector, or none with -1. The server keeps a copy.
func (k *Client) SetVector(vector, eventfd int) error {
	s := irqSet{flags: irqEventfd | irqTrigger, index: irqMSIX, start: uint32(vector), count: 1}
	var fds []int
	if eventfd >= 0 {
		fds = []int{eventfd}
	}
	_, err := k.call(cmdSetIRQs, s.append(nil), fds...)
	return err
}

// DisableVectors takes all eventfds back.
func (k *Client) DisableVectors() error {
	s := irqSet{flags: irqNone | irqTrigger, index: irqMSIX}
	_, err := k.call(cmdSetIRQs, s.append(nil))
	return err
}

// Reset is the machine's reset.
func (k *Client) Reset() error {
	_, err := k.call(cmdReset, nil)
	return err
}

// NewMemfd makes a file in memory that can be mapped and shared.
func NewMemfd(size int) (fd int, mem []byte, err error) {
	fd, err = unix.MemfdCreate("quac100", unix.MFD_CLOEXEC)
	if err != nil {
		return -1, nil, fmt.Errorf("create a memory file: %w", err)
	}
	if err = unix.Ftruncate(fd, int64(size)); err == nil {
		mem, err = unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	}
	if err != nil {
		unix.Close(fd)
		return -1, nil, fmt.Errorf("size a memory file: %w", err)
	}
	return fd, mem, nil
}
