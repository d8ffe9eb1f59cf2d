package net_test

import (
	"bytes"
	"encoding/binary"
	"maps"
	"runtime"
	"testing"

	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"

	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/hv/virtio/net"
)

// udp makes a frame of UDP over IPv4 of flow n, from the guest or to it.
func udp(n byte, fromGuest bool, payload string) []byte {
	hostMAC := []byte{2, 0, 0, 0, 0, 9}
	src, dst := []byte{10, 0, 0, 1}, []byte{10, 0, 0, 2}
	sport, dport := uint16(7000)+uint16(n), uint16(8000)
	b := append(bytes.Clone(hostMAC), guestMAC...)
	if !fromGuest {
		b = append(bytes.Clone(guestMAC), hostMAC...)
		src, dst, sport, dport = dst, src, dport, sport
	}
	b = append(b, 0x08, 0x00, 0x45, 0)
	b = binary.BigEndian.AppendUint16(b, uint16(28+len(payload)))
	b = append(b, 0, 0, 0, 0, 64, 17, 0, 0)
	b = append(append(b, src...), dst...)
	b = binary.BigEndian.AppendUint16(b, sport)
	b = binary.BigEndian.AppendUint16(b, dport)
	b = binary.BigEndian.AppendUint16(b, uint16(8+len(payload)))
	b = append(b, 0, 0)
	return append(b, payload...)
}

// TestPairs: the answer to a flow comes to the pair that it went out on.
func TestPairs(t *testing.T) {
	const pairs = 4
	r := newRig(t, pairs, control|multiQueue)
	if n := r.Read(4, 8, 2); n != pairs {
		t.Errorf("%d pairs", n)
	}
	given := make([]map[uint16]driver.Buffer, pairs)
	for _, n := range []byte{1, pairs, 2, pairs} {
		if r.command(4, 0, n, 0) != 0 || r.dev.Pairs() != int(n) {
			t.Fatalf("%d pairs of %d", r.dev.Pairs(), n)
		}
		for i := range int(n) {
			if given[i] == nil {
				given[i] = r.offer(i, 64, 2000)
			}
			out := r.Queues[2*i+1]
			out.Do(out.Out(make([]byte, headerSize)), out.Out(udp(byte(i), true, "out")))
			r.fromHost(udp(byte(i), false, "back"))
			for {
				head, n := r.Queues[2*i].Wait()
				if got := r.Queues[2*i].Bytes(given[i][head])[:n]; bytes.HasSuffix(got, []byte("back")) {
					break
				}
			}
		}
	}
	if err := r.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	if err := r.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	if r.dev.Pairs() != pairs {
		t.Errorf("%d pairs after a pause", r.dev.Pairs())
	}
	r.restart(control)
	if r.dev.Pairs() != 1 {
		t.Errorf("%d pairs after a reset", r.dev.Pairs())
	}
	if r.command(4, 0, 2, 0) != 1 {
		t.Error("pairs that were not negotiated")
	}
}

func setMTU(t testing.TB, host int, mtu uint32) {
	t.Helper()
	req, err := unix.NewIfreq(tapName)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint32(mtu)
	if err := unix.IoctlIfreq(host, unix.SIOCSIFMTU, req); err != nil {
		t.Fatal(err)
	}
}

// TestMerged: a packet of 60 kB fills many small buffers, and they are published at once.
func TestMerged(t *testing.T) {
	r := newRig(t, 1, mergeable)
	setMTU(t, r.host, 65521)
	const size = 1000
	payload := make([]byte, 60_000)
	for i := range payload {
		payload[i] = byte(i * i >> 3)
	}
	q := r.Queues[0]
	for _, n := range []int{60_000, 1, 7 * size, 30_000} {
		buffers := r.offer(0, 70, size)
		want := frame(string(payload[:n]))
		r.fromHost(want)
		if got := receiveMerged(t, q, buffers); !bytes.HasPrefix(got, want) {
			t.Fatalf("%d bytes came, not %d, or others", len(got), len(want))
		}
		drain(q)
		r.Start(mergeable)
		q = r.Queues[0]
	}
	if n := r.dev.Stats().RxDropped; n != 0 {
		t.Errorf("%d packets were dropped", n)
	}
	// A packet waits until there is room for all of it, and those behind it with it.
	buffers, want, read := r.offer(0, 4, size), frame(string(payload[:5000])), r.fromTAP()
	r.fromHost(want)
	for r.fromTAP() == read {
		runtime.Gosched()
	}
	r.fromHost(frame("small"))
	maps.Copy(buffers, r.offer(0, 8, size))
	for _, want := range [][]byte{want, frame("small")} {
		if got := receiveMerged(t, q, buffers); !bytes.HasPrefix(got, want) {
			t.Errorf("%d bytes came, not %d, or others", len(got), len(want))
		}
	}
	if n := r.dev.Stats().RxDropped; n != 0 {
		t.Errorf("%d packets were dropped", n)
	}
	// One for which even the whole queue has no room is dropped, and the next one comes.
	r.Start(mergeable)
	q = r.Queues[0]
	buffers = r.offer(0, q.Size, 16)
	r.fromHost(frame(string(payload[:16*q.Size])))
	r.fromHost(frame("small"))
	if got := receiveMerged(t, q, buffers); !bytes.HasPrefix(got, frame("small")) || r.dev.Stats().RxDropped != 1 {
		t.Errorf("%q, %d dropped", got, r.dev.Stats().RxDropped)
	}
	// The header must be in one buffer.
	r.Start(mergeable)
	q = r.Queues[0]
	for range 100 {
		q.Add(q.In(8))
	}
	q.Kick()
	r.fromHost(frame("no room for a header"))
	if !r.Broken() {
		t.Error("a header was spread over buffers")
	}
}

// receiveMerged returns the next packet of ours without its header: the host's kernel
// sends others, too.
func receiveMerged(t testing.TB, q *driver.Queue, buffers map[uint16]driver.Buffer) []byte {
	t.Helper()
	for {
		head, first := q.Wait()
		data := q.Bytes(buffers[head])[:first]
		count := int(binary.LittleEndian.Uint16(data[10:]))
		got := bytes.Clone(data[headerSize:])
		for range count - 1 {
			head, n, ok := q.Done()
			if !ok {
				t.Fatalf("%d buffers were announced, and not all are there", count)
			}
			got = append(got, q.Bytes(buffers[head])[:n]...)
		}
		if len(got) >= 14 && got[12] == 0x88 && got[13] == 0xb5 {
			return got
		}
	}
}

// fromTAP is how many packets were read from the TAP.
func (r *rig) fromTAP() uint64 {
	r.TB.Helper()
	link, err := netlink.LinkByName(tapName)
	if err != nil {
		r.TB.Fatal(err)
	}
	return link.Attrs().Statistics.TxPackets
}

func drain(q *driver.Queue) {
	for {
		if _, _, ok := q.Done(); !ok {
			return
		}
	}
}

// TestSegments: a segment of 20 kB leaves the guest in one piece.
func TestSegments(t *testing.T) {
	r := newRig(t, 1, 1<<0|1<<11) // CSUM, HOST_TSO4
	payload := make([]byte, 20_000)
	f := append([]byte{0x02, 0, 0, 0, 0, 9}, guestMAC...)
	f = append(f, 0x08, 0x00, 0x45, 0)
	f = binary.BigEndian.AppendUint16(f, uint16(40+len(payload)))
	f = append(f, 0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2)
	f = append(f, 0x1b, 0x58, 0x1f, 0x40, 0, 0, 0, 1, 0, 0, 0, 1, 0x50, 0x10, 0xff, 0xff, 0, 0, 0, 0)
	f = append(f, payload...)
	header := make([]byte, headerSize)
	header[0], header[1] = 1, 1 // needs a checksum; TCP over IPv4
	binary.LittleEndian.PutUint16(header[2:], 54)
	binary.LittleEndian.PutUint16(header[4:], 1448)
	binary.LittleEndian.PutUint16(header[6:], 34)
	binary.LittleEndian.PutUint16(header[8:], 16)
	q := r.Queues[1]
	q.Do(q.Out(header), q.Out(f[:100]), q.Out(f[100:]))
	buf := make([]byte, 70_000)
	for {
		n, err := unix.Read(r.host, buf)
		if err == unix.EINTR {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if buf[12] == 0x08 && buf[13] == 0 && n == len(f) {
			break
		}
	}
	// A header that makes no sense is refused by the kernel.
	header[1] = 0x77
	q.Do(q.Out(header), q.Out(f))
	if s := r.dev.Stats(); s.TxPackets != 1 || s.TxErrors != 1 {
		t.Errorf("%+v", s)
	}
}

func TestPairsRefused(t *testing.T) {
	taps, _ := newTAPs(t, multiFlags, 2)
	if _, err := net.New(taps, net.Options{MAC: guestMAC, Vhost: taps[:1]}); err == nil {
		t.Error("one vhost-net for two pairs")
	}
	if _, err := net.New(nil, net.Options{MAC: guestMAC}); err == nil {
		t.Error("no TAP")
	}
}
