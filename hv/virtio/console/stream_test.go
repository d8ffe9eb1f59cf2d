package console_test

import (
	"encoding/binary"
	"errors"
	"io"
	"testing"
	"time"

	"quantavirt/hv/limit"
	"quantavirt/hv/virtio/console"
	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/internal/qverr"
)

const (
	size, multiport = 1 << 0, 1 << 1

	ctrlIn, ctrlOut = 2, 3
	agentIn         = 4
	agentOut        = 5
	agent           = "org.qemu.guest_agent.0"
)

type rig struct {
	*driver.Driver
	dev *console.Device
}

func newRig(t *testing.T, features uint64, ports ...string) *rig {
	t.Helper()
	dev := newConsole(t, &screen{}, console.Options{Ports: ports})
	r := &rig{driver.New(t, dev, driver.NewMemory(t)), dev}
	r.Start(features)
	return r
}

func newConsole(t *testing.T, out io.Writer, o console.Options) *console.Device {
	t.Helper()
	dev, err := console.New(out, o)
	if err != nil {
		t.Fatal(err)
	}
	return dev
}

// tell sends a control message, and hear waits for one.
func (r *rig) tell(port uint32, event, value uint16) {
	q := r.Queues[ctrlOut]
	b := binary.LittleEndian.AppendUint32(nil, port)
	b = binary.LittleEndian.AppendUint16(binary.LittleEndian.AppendUint16(b, event), value)
	q.Do(q.Out(b))
}

func (r *rig) hear() (port uint32, event, value uint16, rest string) {
	r.TB.Helper()
	q := r.Queues[ctrlIn]
	in := q.In(200)
	n := q.Do(in)
	if n < 8 {
		r.TB.Fatalf("a message of %d bytes", n)
	}
	b := q.Bytes(in)[:n]
	return binary.LittleEndian.Uint32(b), binary.LittleEndian.Uint16(b[4:]), binary.LittleEndian.Uint16(b[6:]), string(b[8:])
}

type message struct {
	port         uint32
	event, value uint16
	rest         string
}

func (r *rig) expect(list ...message) {
	r.TB.Helper()
	for _, want := range list {
		var got message
		got.port, got.event, got.value, got.rest = r.hear()
		if got != want {
			r.TB.Errorf("heard %+v, want %+v", got, want)
		}
	}
}

// open takes a port through its introduction.
func (r *rig) open() {
	r.TB.Helper()
	r.tell(0, 0, 1)
	r.expect(message{0, 1, 1, ""}, message{1, 1, 1, ""})
	r.tell(1, 3, 1)
	r.expect(message{1, 7, 1, agent}, message{1, 6, 0, ""})
	r.tell(1, 6, 1)
}

func TestPorts(t *testing.T) {
	r := newRig(t, size|multiport, agent)
	if n := r.Read(4, 4, 4); n != 2 {
		t.Errorf("%d ports", n)
	}
	r.dev.SetSize(132, 43)
	r.expect(message{0, 5, 1, "\x84\x00\x2b\x00"})
	r.open()
	r.tell(0, 3, 1)
	r.expect(message{0, 4, 1, ""}, message{0, 6, 1, ""}, message{0, 5, 1, "\x84\x00\x2b\x00"})
	for _, nonsense := range []message{{99, 3, 1, ""}, {0xffff_ffff, 6, 1, ""}, {1, 99, 1, ""}, {0, 0, 0, ""}} {
		r.tell(nonsense.port, nonsense.event, nonsense.value)
	}
	q := r.Queues[ctrlOut]
	q.Do(q.Out([]byte{1, 2, 3}))
	s := r.dev.Stream(agent)
	if s == nil || r.dev.Stream("other") != nil || r.dev.Stream("") != nil {
		t.Fatal("names are confused")
	}
	out := r.Queues[agentOut]
	out.Do(out.Out([]byte("nobody hears this")))
	for range 2 {
		if err := s.Attach(); err != nil {
			t.Fatal(err)
		}
		if err := s.Attach(); !errors.Is(err, qverr.Busy) {
			t.Errorf("a second reader: %v", err)
		}
		r.expect(message{1, 6, 1, ""})
		out.Do(out.Out([]byte("from ")), out.Out([]byte("the guest")))
		buf := make([]byte, 100)
		if n, err := s.Read(buf); err != nil || string(buf[:n]) != "from the guest" {
			t.Fatalf("%q, %v", buf[:n], err)
		}
		if n, err := s.Write([]byte("to the guest")); n != 12 || err != nil {
			t.Fatal(n, err)
		}
		in := r.Queues[agentIn]
		b := in.In(100)
		if n := in.Do(b); string(in.Bytes(b)[:n]) != "to the guest" {
			t.Errorf("%q", in.Bytes(b)[:n])
		}
		s.Detach()
		r.expect(message{1, 6, 0, ""})
		if n, err := s.Read(buf); n != 0 || !errors.Is(err, io.EOF) {
			t.Errorf("after the end: %d, %v", n, err)
		}
		if _, err := s.Write(buf); !errors.Is(err, io.ErrClosedPipe) {
			t.Errorf("after the end: %v", err)
		}
	}
}

// TestAskedAgain: however often the guest asks, it is told once for each buffer that it
// gives, and what waits is bounded.
func TestAskedAgain(t *testing.T) {
	r := newRig(t, size|multiport, agent)
	for range 200 {
		r.tell(0, 0, 1)
	}
	r.expect(message{0, 1, 1, ""}, message{1, 1, 1, ""})
	q := r.Queues[ctrlIn]
	q.Add(q.In(100))
	q.Kick()
	r.Interrupted(ctrlIn+1, 30)
	if _, n, ok := q.Done(); ok {
		t.Errorf("%d more bytes", n)
	}
}

// TestFlow: both directions wait for their readers, and lose nothing.
func TestFlow(t *testing.T) {
	r := newRig(t, size|multiport, agent)
	r.open()
	s := r.dev.Stream(agent)
	if err := s.Attach(); err != nil {
		t.Fatal(err)
	}
	const chunk, chunks = 16 << 10, 16
	out := r.Queues[agentOut]
	data := make([]byte, chunk)
	for i := range chunks {
		data[0] = byte(i)
		out.Add(out.Out(data))
	}
	out.Kick()
	r.Interrupted(agentOut+1, 50)
	done := 0
	for {
		if _, _, ok := out.Done(); !ok {
			break
		}
		done++
	}
	if done > 5 {
		t.Errorf("%d of %d requests were taken, and nobody reads", done, chunks)
	}
	buf := make([]byte, chunk)
	for i := range chunks {
		if _, err := io.ReadFull(s, buf); err != nil || buf[0] != byte(i) {
			t.Fatalf("chunk %d is %d, %v", i, buf[0], err)
		}
	}
	wrote := make(chan int)
	go func() {
		n, _ := s.Write(make([]byte, 1<<20))
		wrote <- n
	}()
	in := r.Queues[agentIn]
	for got := 0; got < 512<<10; {
		got += int(in.Do(in.In(32 << 10)))
	}
	select {
	case n := <-wrote:
		t.Errorf("%d bytes were taken, and the guest has not read them", n)
	case <-time.After(20 * time.Millisecond):
	}
	s.Detach()
	if n := <-wrote; n < 512<<10 || n == 1<<20 {
		t.Errorf("%d bytes were written", n)
	}
	out.Add(out.Out(data))
	if err := s.Attach(); err != nil {
		t.Fatal(err)
	}
	big := driver.Buffer{Addr: 0x10000, Len: 2 << 20}
	out.Add(big)
	out.Kick()
	if !r.Broken() {
		t.Error("two megabytes at once")
	}
}

func TestSize(t *testing.T) {
	r := newRig(t, size)
	if len(r.Queues) != 2 {
		t.Errorf("%d queues", len(r.Queues))
	}
	r.dev.SetSize(100, 30)
	if c, l := r.Read(4, 0, 2), r.Read(4, 2, 2); c != 100 || l != 30 {
		t.Errorf("%d columns, %d rows", c, l)
	}
}

// TestOutputIsLimited: a guest that prints without end is slowed down.
func TestOutputIsLimited(t *testing.T) {
	var out screen
	l := limit.New(limit.Limits{Bytes: limit.Rate{PerSecond: 1, Burst: 100}})
	d := driver.New(t, newConsole(t, &out, console.Options{Limit: l}), driver.NewMemory(t))
	d.Start(0)
	q := d.Queues[tx]
	for range 50 {
		q.Add(q.Out(make([]byte, 50)))
	}
	q.Kick()
	d.Interrupted(tx+1, 50)
	if n := len(out.String()); n == 0 || n > 200 {
		t.Errorf("%d bytes were printed", n)
	}
}

func TestTooManyPorts(t *testing.T) {
	if _, err := console.New(io.Discard, console.Options{Ports: make([]string, 9)}); !errors.Is(err, qverr.Limit) {
		t.Errorf("%v", err)
	}
}
