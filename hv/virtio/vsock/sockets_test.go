package vsock

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/internal/driver"
)

const (
	guestCID  = 42
	guestPort = 7000
	hostPort  = 80
	peerRoom  = 1 << 20
)

// rig is a device on UNIX sockets with a guest that is the test.
type rig struct {
	*driver.Driver
	dev  *Sockets
	path string
	buf  driver.Buffer // of receive
	srv  net.Listener  // what serves hostPort
}

func newRig(t *testing.T) *rig {
	t.Helper()
	dir := t.TempDir()
	r := &rig{path: filepath.Join(dir, "v")}
	l, err := net.Listen("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	if r.srv, err = net.Listen("unix", r.path+"_80"); err != nil {
		t.Fatal(err)
	}
	r.dev = NewSockets(guestCID, l, func(port uint32) (net.Conn, error) {
		return net.Dial("unix", fmt.Sprintf("%s_%d", r.path, port))
	})
	r.Driver = driver.New(t, r.dev, driver.NewMemory(t))
	t.Cleanup(r.dev.Close)
	t.Cleanup(func() { r.srv.Close() })
	r.Start(virtio.FeatureEventIdx)
	if r.Driver.Read(4, 0, 8) != guestCID {
		t.Error("another context id")
	}
	r.buf = r.Queues[0].In(headerSize + 4096)
	return r
}

// TestVectors has all queues share one, so that they stay on one CPU of the guest.
func TestVectors(t *testing.T) {
	r := newRig(t)
	if n := r.Transport.PCI().MSIX().Vectors(); n != 2 {
		t.Errorf("%d vectors", n)
	}
	const selectQueue, queueVector, none = 22, 26, 0xffff
	r.Write(1, selectQueue, 2, 0)
	r.Write(1, queueVector, 2, 2)
	if v := r.Read(1, queueVector, 2); v != none {
		t.Errorf("the first queue got vector %d, which there is not", v)
	}
}

func (r *rig) send(h header, data string) {
	r.TB.Helper()
	var raw [headerSize]byte
	h.length = uint32(len(data))
	h.encode(&raw)
	q := r.Queues[1]
	if data == "" {
		q.Do(q.Out(raw[:]))
		return
	}
	q.Do(q.Out(raw[:]), q.Out([]byte(data)))
}

// packet is one of the guest's, on the connection of the tests.
func packet(op uint16) header {
	return header{srcCID: guestCID, dstCID: hostCID, srcPort: guestPort, dstPort: hostPort, kind: typeStream, op: op, bufAlloc: peerRoom}
}

// receive waits for a packet to the guest.
func (r *rig) receive() (h header, data []byte) {
	r.TB.Helper()
	q := r.Queues[0]
	n := q.Do(r.buf)
	b := q.Bytes(r.buf)[:n]
	if len(b) < headerSize {
		r.TB.Fatalf("a packet of %d bytes", len(b))
	}
	h.decode((*[headerSize]byte)(b))
	if int(h.length) != len(b)-headerSize || h.srcCID != hostCID || h.dstCID != guestCID {
		r.TB.Fatalf("%+v with %d bytes", h, len(b))
	}
	return h, b[headerSize:]
}

func (r *rig) expect(op uint16) header {
	r.TB.Helper()
	h, _ := r.receive()
	if h.op != op {
		r.TB.Fatalf("operation %d, want %d: %+v", h.op, op, h)
	}
	return h
}

// connect makes a connection of the guest to the host's port and returns its other end.
func (r *rig) connect() net.Conn {
	r.TB.Helper()
	r.send(packet(opRequest), "")
	sock, err := r.srv.Accept()
	if err != nil {
		r.TB.Fatal(err)
	}
	if h := r.expect(opResponse); h.bufAlloc != bufferSize || h.srcPort != hostPort || h.dstPort != guestPort {
		r.TB.Errorf("%+v", h)
	}
	return sock
}

func TestGuestConnects(t *testing.T) {
	r := newRig(t)
	for range 2 {
		sock := r.connect()
		r.send(packet(opData), "hello host")
		buf := make([]byte, 10)
		if _, err := io.ReadFull(sock, buf); err != nil || string(buf) != "hello host" {
			t.Fatalf("%q, %v", buf, err)
		}
		if _, err := io.WriteString(sock, "hello guest"); err != nil {
			t.Fatal(err)
		}
		if h, data := r.receive(); h.op != opData || string(data) != "hello guest" || h.fwdCnt != 10 {
			t.Fatalf("%+v %q", h, data)
		}
		// The host is done, then the guest: a clean end is answered with a reset.
		sock.(*net.UnixConn).CloseWrite()
		if h := r.expect(opShutdown); h.flags != shutdownSend {
			t.Errorf("%+v", h)
		}
		end := packet(opShutdown)
		end.flags = shutdownSend | shutdownReceive
		r.send(end, "")
		r.expect(opReset)
		if n, err := sock.Read(buf); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("%d bytes, %v", n, err)
		}
	}
	// Nobody listens.
	none := packet(opRequest)
	none.dstPort = 81
	r.send(none, "")
	if h := r.expect(opReset); h.srcPort != 81 {
		t.Errorf("%+v", h)
	}
}

func TestHostConnects(t *testing.T) {
	r := newRig(t)
	sock, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer sock.Close()
	if _, err := io.WriteString(sock, "CONNECT 7000\nearly"); err != nil {
		t.Fatal(err)
	}
	h := r.expect(opRequest)
	if h.dstPort != guestPort || h.srcPort < firstPort {
		t.Fatalf("%+v", h)
	}
	answer := packet(opResponse)
	answer.dstPort = h.srcPort
	r.send(answer, "")
	br := bufio.NewReader(sock)
	if line, err := br.ReadString('\n'); err != nil || line != fmt.Sprintf("OK %d\n", h.srcPort) {
		t.Fatalf("%q, %v", line, err)
	}
	if d, data := r.receive(); d.op != opData || string(data) != "early" || d.fwdCnt != 0 {
		t.Fatalf("%+v %q", d, data)
	}
	// A whole buffer of the guest's fits beside the line.
	for left := bufferSize; left > 0; left -= 32 << 10 {
		data := packet(opData)
		data.dstPort = h.srcPort
		r.send(data, strings.Repeat("x", 32<<10))
	}
	if _, err := io.ReadFull(br, make([]byte, bufferSize)); err != nil {
		t.Fatal(err)
	}
	end := packet(opReset)
	end.dstPort = h.srcPort
	r.send(end, "")
	if n, err := br.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	// Refused by the guest, and nonsense.
	for _, ask := range []string{"CONNECT 7001\n", "CONNECT -1\n", "HELLO\n", strings.Repeat("x", 100)} {
		sock, err := net.Dial("unix", r.path)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := io.WriteString(sock, ask); err != nil {
			t.Fatal(err)
		}
		if ask == "CONNECT 7001\n" {
			h := r.expect(opRequest)
			no := packet(opReset)
			no.srcPort, no.dstPort = 7001, h.srcPort
			r.send(no, "")
		}
		if n, err := sock.Read(make([]byte, 1)); n != 0 || err == nil {
			t.Errorf("%q: %d bytes, %v", ask, n, err)
		}
		sock.Close()
	}
}

// TestCredit: neither side sends more than the other has room for.
func TestCredit(t *testing.T) {
	r := newRig(t)
	sock := r.connect()
	little := packet(opCreditUpdate)
	little.bufAlloc = 10
	r.send(little, "")
	if _, err := sock.Write(bytes.Repeat([]byte("0123456789"), 3)); err != nil {
		t.Fatal(err)
	}
	if h, data := r.receive(); h.op != opData || string(data) != "0123456789" {
		t.Fatalf("%+v %q", h, data)
	}
	r.expect(opCreditRequest)
	more := little
	more.fwdCnt = 4
	r.send(more, "")
	if h, data := r.receive(); h.op != opData || string(data) != "0123" {
		t.Fatalf("%+v %q", h, data)
	}
	// Numbers that make no sense are no room.
	r.expect(opCreditRequest)
	nonsense := little
	nonsense.fwdCnt = 1 << 31
	r.send(nonsense, "")
	r.expect(opCreditRequest)
	little.fwdCnt, little.bufAlloc = 14, 1<<20
	r.send(little, "")
	if h, data := r.receive(); h.op != opData || string(data) != "4567890123456789" {
		t.Fatalf("%+v %q", h, data)
	}
	// The guest asks for ours.
	r.send(packet(opCreditRequest), "")
	if h := r.expect(opCreditUpdate); h.bufAlloc != bufferSize || h.fwdCnt != 0 {
		t.Errorf("%+v", h)
	}
	// As the host reads, the guest hears of it.
	const half = bufferSize / 2
	r.send(packet(opData), strings.Repeat("a", half))
	if _, err := io.ReadFull(sock, make([]byte, half)); err != nil {
		t.Fatal(err)
	}
	if h := r.expect(opCreditUpdate); h.fwdCnt != half {
		t.Errorf("%+v", h)
	}
}

// TestOverrun: a guest that sends more than it may loses the connection, and no memory is
// taken for it.
func TestOverrun(t *testing.T) {
	r := newRig(t)
	sock := r.connect() // nobody reads it; the socket itself holds some
	defer sock.Close()
	chunk := strings.Repeat("x", 32<<10)
	var raw [headerSize]byte
	h := packet(opData)
	h.length = uint32(len(chunk))
	h.encode(&raw)
	q := r.Queues[1]
	head, data := q.Out(raw[:]), q.Out([]byte(chunk))
	for range 64 {
		q.Do(head, data)
	}
	for {
		if h, _ := r.receive(); h.op == opReset {
			break
		}
	}
	r.dev.mu.Lock()
	defer r.dev.mu.Unlock()
	if len(r.dev.conns) != 0 {
		t.Error("the connection is still there")
	}
}

// TestBadPackets are refused, ignored or break the device.
func TestBadPackets(t *testing.T) {
	r := newRig(t)
	for name, change := range map[string]func(*header){
		"no connection": func(h *header) { h.op = opData },
		"datagram":      func(h *header) { h.op, h.kind = opRequest, 3 },
		"no operation":  func(h *header) { h.op = 99 },
	} {
		h := packet(0)
		change(&h)
		r.send(h, "")
		if got := r.expect(opReset); got.dstPort != guestPort || got.kind != h.kind {
			t.Errorf("%s: %+v", name, got)
		}
	}
	for _, change := range []func(*header){
		func(h *header) { h.srcCID = 7 },
		func(h *header) { h.dstCID = 7 },
		func(h *header) { h.op = opReset },
	} {
		h := packet(opRequest)
		change(&h)
		r.send(h, "")
	}
	sock := r.connect() // nothing came in between
	r.send(packet(opRequest), "")
	r.expect(opReset) // twice the same
	sock.Close()
	q := r.Queues[1]
	q.Add(q.Out(make([]byte, headerSize-1)))
	q.Kick()
	if !r.Broken() {
		t.Error("half a header")
	}
	r = newRig(t)
	var raw [headerSize]byte
	h := packet(opData)
	h.length = 100
	h.encode(&raw)
	q = r.Queues[1]
	q.Add(q.Out(raw[:]))
	q.Kick()
	if !r.Broken() {
		t.Error("a length beyond the packet")
	}
}

// TestFlood: a guest that is refused and does not listen is not listened to either.
func TestFlood(t *testing.T) {
	r := newRig(t)
	var raw [headerSize]byte
	h := packet(opData)
	h.encode(&raw)
	q := r.Queues[1]
	out := q.Out(raw[:])
	for range 100 {
		q.Add(out)
	}
	q.Kick()
	for range maxResets {
		q.Wait()
	}
	r.dev.mu.Lock()
	n := len(r.dev.resets)
	r.dev.mu.Unlock()
	if n != maxResets {
		t.Errorf("%d refusals wait", n)
	}
	for range 100 {
		r.expect(opReset)
	}
}

// TestReset: connections end with the driver.
func TestReset(t *testing.T) {
	r := newRig(t)
	sock := r.connect()
	r.SetStatus(0)
	if n, err := sock.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("%d bytes, %v", n, err)
	}
	lost, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.WriteString(lost, "CONNECT 1\n"); err != nil {
		t.Fatal(err)
	}
	if n, err := lost.Read(make([]byte, 1)); n != 0 || err == nil {
		t.Errorf("without a driver: %d bytes, %v", n, err)
	}
	silent, err := net.Dial("unix", r.path)
	if err != nil {
		t.Fatal(err)
	}
	defer silent.Close()
	began := time.Now()
	r.dev.Close()
	if took := time.Since(began); took > askTime {
		t.Errorf("Close waited %v for a program that says nothing", took)
	}
}
