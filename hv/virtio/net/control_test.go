package net_test

import (
	"bytes"
	"encoding/binary"
	stdnet "net"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/hv/virtio/net"
)

// Feature bits of the tests.
const (
	guestCSum     = 1 << 1
	guestOffloads = 1 << 2
	guestTSO4     = 1 << 7
	mergeable     = 1 << 15
	control       = 1<<17 | 1<<18 | 1<<23
	announce      = 1 << 21
	multiQueue    = 1 << 22
)

const multiFlags = goodFlags | unix.IFF_MULTI_QUEUE

// rig is a device with its driver and the other side of its TAP.
type rig struct {
	*driver.Driver
	dev  *net.Device
	host int
	ctrl int // index of the control queue
}

func newRig(t testing.TB, pairs int, features uint64) *rig {
	t.Helper()
	flags := uint16(goodFlags)
	if pairs > 1 {
		flags = multiFlags
	}
	taps, host := newTAPs(t, flags, pairs)
	dev, err := net.New(taps, net.Options{MAC: guestMAC})
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{Driver: driver.New(t, dev, driver.NewMemory(t)), dev: dev, host: host, ctrl: 2}
	t.Cleanup(dev.Close)
	r.Start(features)
	if features&multiQueue != 0 {
		r.ctrl = 2 * pairs
	}
	return r
}

// restart resets the device; the driver then knows of one pair.
func (r *rig) restart(features uint64) {
	r.Start(features)
	r.ctrl = 2
}

// command sends a command and returns the answer.
func (r *rig) command(class, cmd byte, data ...byte) byte {
	r.TB.Helper()
	q := r.Queues[r.ctrl]
	ack := q.In(1)
	if n := q.Do(q.Out([]byte{class, cmd}), q.Out(data), ack); n != 1 {
		r.TB.Fatalf("%d bytes of answer", n)
	}
	return q.Bytes(ack)[0]
}

// offer gives the guest's side of pair i buffers.
func (r *rig) offer(i, n, size int) map[uint16]driver.Buffer {
	q := r.Queues[2*i]
	buffers := map[uint16]driver.Buffer{}
	for range n {
		b := q.In(size)
		buffers[q.Add(b)] = b
	}
	q.Kick()
	return buffers
}

func (r *rig) fromHost(frame []byte) {
	r.TB.Helper()
	if _, err := unix.Write(r.host, frame); err != nil {
		r.TB.Fatal(err)
	}
}

func to(mac []byte, payload string) []byte {
	b := append(bytes.Clone(mac), 0x02, 0, 0, 0, 0, 9, 0x88, 0xb5)
	return append(b, payload...)
}

// TestCommands answers each command, good and bad.
func TestCommands(t *testing.T) {
	r := newRig(t, 2, control|announce|multiQueue|guestOffloads|guestCSum)
	table := func(macs ...stdnet.HardwareAddr) []byte {
		b := binary.LittleEndian.AppendUint32(nil, uint32(len(macs)))
		for _, m := range macs {
			b = append(b, m...)
		}
		return b
	}
	many := make([]stdnet.HardwareAddr, 100)
	for i := range many {
		many[i] = stdnet.HardwareAddr{2, 0, 0, 0, 1, byte(i)}
	}
	le64 := func(v uint64) []byte { return binary.LittleEndian.AppendUint64(nil, v) }
	for _, tc := range []struct {
		name       string
		class, cmd byte
		data       []byte
		want       byte
	}{
		{"promiscuous", 0, 0, []byte{1}, 0},
		{"all multicast", 0, 1, []byte{1}, 0},
		{"no such mode", 0, 9, []byte{1}, 1},
		{"mode without value", 0, 0, []byte{1, 2}, 1},
		{"tables", 1, 0, append(table(many[0]), table()...), 0},
		{"long tables", 1, 0, append(table(many...), table(many...)...), 0},
		{"one table", 1, 0, table(many[0]), 1},
		{"table beyond its end", 1, 0, []byte{0xff, 0xff, 0xff, 0xff, 1, 2, 3}, 1},
		{"more behind the tables", 1, 0, append(append(table(), table()...), 1), 1},
		{"address", 1, 1, many[1], 0},
		{"short address", 1, 1, many[1][:5], 1},
		{"address of a group", 1, 1, []byte{3, 0, 0, 0, 0, 1}, 1},
		{"VLAN, not offered", 2, 0, []byte{1, 0}, 1},
		{"announced", 3, 0, []byte{0}, 0},
		{"two pairs", 4, 0, []byte{2, 0}, 0},
		{"one pair", 4, 0, []byte{1, 0}, 0},
		{"no pair", 4, 0, []byte{0, 0}, 1},
		{"three pairs", 4, 0, []byte{3, 0}, 1},
		{"hash, not offered", 4, 1, []byte{1, 0}, 1},
		{"no offload", 5, 0, le64(0), 0},
		{"checksums", 5, 0, le64(guestCSum), 0},
		{"not negotiated", 5, 0, le64(guestCSum | guestTSO4), 1},
		{"no class", 99, 0, []byte{0}, 1},
	} {
		if got := r.command(tc.class, tc.cmd, tc.data...); got != tc.want {
			t.Errorf("%s: %d, want %d", tc.name, got, tc.want)
		}
	}
	q := r.Queues[r.ctrl]
	ack := q.In(1)
	if q.Do(q.Out([]byte{0}), ack); q.Bytes(ack)[0] != 1 {
		t.Error("half a command was obeyed")
	}
	if q.Do(q.Out(make([]byte, 100_000)), ack); q.Bytes(ack)[0] != 1 {
		t.Error("a giant command was obeyed")
	}
	for i, b := range many[1] {
		if got := byte(r.Read(4, uint64(i), 1)); got != b {
			t.Errorf("MAC byte %d is %#x", i, got)
		}
	}
	r.restart(control)
	if got := byte(r.Read(4, 5, 1)); got != guestMAC[5] {
		t.Errorf("after a reset the MAC ends with %#x", got)
	}
	q = r.Queues[r.ctrl]
	q.Add(q.Out([]byte{0, 0}))
	q.Kick()
	if !r.Broken() {
		t.Error("a command without room for an answer")
	}
}

// TestFilter: what the guest does not want does not reach it.
func TestFilter(t *testing.T) {
	r := newRig(t, 1, control)
	buffers := r.offer(0, 64, 2000)
	in := r.Queues[0]
	other, group := []byte{2, 0, 0, 0, 0, 7}, []byte{1, 0, 0x5e, 0, 0, 7}
	all := []byte{0xff, 0xff, 0xff, 0xff, 0xff, 0xff}
	next := func() string {
		t.Helper()
		return string(receiveGuest(t, in, buffers)[headerSize+14:])
	}
	// Before the driver asks, all come.
	r.fromHost(to(other, "early"))
	if got := next(); got != "early" {
		t.Errorf("%q", got)
	}
	set := func(class, cmd byte, data ...byte) {
		t.Helper()
		if r.command(class, cmd, data...) != 0 {
			t.Errorf("command %d %d", class, cmd)
		}
	}
	set(0, 0, 0) // not promiscuous
	r.fromHost(to(other, "no"))
	r.fromHost(to(group, "no"))
	r.fromHost(to(all, "to all"))
	if got := next(); got != "to all" {
		t.Errorf("%q", got)
	}
	set(1, 0, append(append([]byte{1, 0, 0, 0}, other...), append([]byte{1, 0, 0, 0}, group...)...)...)
	for _, mac := range [][]byte{other, group, guestMAC} {
		r.fromHost(to([]byte{2, 0, 0, 0, 0, 8}, "no"))
		r.fromHost(to(mac, string(mac)))
		if got := next(); got != string(mac) {
			t.Errorf("%q, want %q", got, mac)
		}
	}
	set(1, 0, 0, 0, 0, 0, 0, 0, 0, 0)
	set(1, 1, 2, 0, 0, 0, 0, 0x55)
	r.fromHost(to(guestMAC, "no"))
	set(0, 1, 1) // all multicast
	r.fromHost(to(group, "to a group"))
	if got := next(); got != "to a group" {
		t.Errorf("%q", got)
	}
	r.fromHost(to([]byte{2, 0, 0, 0, 0, 0x55}, "new address"))
	if got := next(); got != "new address" {
		t.Errorf("%q", got)
	}
	r.Start(control)
	buffers = r.offer(0, 4, 2000)
	in = r.Queues[0]
	r.fromHost(to(other, "after a reset"))
	if got := next(); got != "after a reset" {
		t.Errorf("%q", got)
	}
}

// TestLink: while the cable is out nothing moves, and the guest knows.
func TestLink(t *testing.T) {
	r := newRig(t, 1, control|announce)
	for _, up := range []bool{false, false, true} {
		if err := r.dev.SetLink(up); err != nil {
			t.Fatal(err)
		}
		if got := r.Read(4, 6, 2)&1 == 1; got != up || r.dev.LinkUp() != up {
			t.Errorf("link %v, want %v", got, up)
		}
	}
	if err := r.dev.SetLink(false); err != nil {
		t.Fatal(err)
	}
	buffers := r.offer(0, 8, 2000)
	r.fromHost(frame("later"))
	r.Interrupted(1, 30)
	if n := r.dev.Stats().RxPackets; n != 0 {
		t.Errorf("%d packets without a cable", n)
	}
	if err := r.dev.SetLink(true); err != nil {
		t.Fatal(err)
	}
	if got := receiveGuest(t, r.Queues[0], buffers); !bytes.HasSuffix(got, []byte("later")) {
		t.Errorf("%q", got)
	}
	// After a pause the guest is asked to announce itself, until it says that it did.
	if err := r.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := r.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	if r.Read(4, 6, 2) != 3 {
		t.Errorf("status %d", r.Read(4, 6, 2))
	}
	if r.command(3, 0, 0) != 0 || r.Read(4, 6, 2) != 1 {
		t.Errorf("status %d after the announcement", r.Read(4, 6, 2))
	}
}
