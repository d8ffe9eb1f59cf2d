package vfiouser

import (
	"bytes"
	"encoding/json"
	"net"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// What QEMU 11.1 was seen to do and to stumble over, one test each. Those that are not here: TestRegistersDuringDMA (the
// deadlock of a register read and a DMA message), TestManyMaps (a fresh descriptor for each map), TestRemoteMemory (DMA in
// pieces of 64 KiB), TestVectors (vectors that fire before their eventfd comes), TestSharedMemory (read-only maps).

// A reply must come with one send: QEMU takes a short header for the end.
func TestReplyIsOneSend(t *testing.T) {
	path := serve(t, &fakeCard{})
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	ok(t, err)
	defer c.Close()
	ask := func(cmd command, payload []byte) []byte {
		t.Helper()
		b := make([]byte, headerSize)
		h := header{id: 9, cmd: cmd, size: uint32(headerSize + len(payload))}
		h.put(b)
		_, err := c.Write(append(b, payload...))
		ok(t, err)
		got := make([]byte, 1<<17)
		n, err := c.Read(got) // the first read finds all of it
		ok(t, err)
		h, err = parseHeader(got[:n])
		ok(t, err)
		if int(h.size) != n || h.id != 9 {
			t.Fatalf("a reply of %d bytes came as %d", h.size, n)
		}
		return got[headerSize:n]
	}
	v := version{caps: capabilities{MaxMsgFDs: maxFDs, MaxDataXfer: maxData}}
	reply := ask(cmdVersion, v.append(nil))
	// What would make QEMU send messages that are not there: several writes in one, migration, a second socket.
	var offer struct {
		Capabilities map[string]any `json:"capabilities"`
	}
	ok(t, json.Unmarshal(bytes.TrimRight(reply[4:], "\x00"), &offer))
	for _, no := range []string{"write_multiple", "migration", "twin_socket"} {
		if _, offered := offer.Capabilities[no]; offered || len(offer.Capabilities) == 0 {
			t.Errorf("%s is offered, or nothing: %v", no, offer.Capabilities)
		}
	}
	r := regionIO{region: regionConfig, count: regs.CfgSize}
	if n := len(ask(cmdRegionRead, r.append(nil))); n != 16+regs.CfgSize {
		t.Errorf("the configuration space came with %d bytes", n)
	}
}

// What the card says of regions and vectors must not lead QEMU astray.
func TestNothingIsOfferedTooMuch(t *testing.T) {
	_, c := pair(t)
	// No region may be mapped: one that is takes posted writes from all of the device.
	for index := range uint32(regionCount) {
		out, err := c.call(cmdGetRegionInfo, u32s(regionSize, 0, index, 0, 0, 0, 0, 0))
		ok(t, err)
		if flags := ne.Uint32(out[4:]); flags&^uint32(regionRead|regionWrite) != 0 || ne.Uint32(out[12:]) != 0 {
			t.Errorf("region %d: flags %#x, capabilities at %d", index, flags, ne.Uint32(out[12:]))
		}
	}
	// With NORESIZE QEMU would arm all vectors again for each further one, and lose some meanwhile.
	out, err := c.call(cmdGetIRQInfo, u32s(irqInfoSize, 0, irqMSIX, 0))
	ok(t, err)
	if flags := ne.Uint32(out[4:]); flags != irqByEventfd {
		t.Errorf("vectors: flags %#x", flags)
	}
}

// Maps come before anything was asked; unmaps come for ranges that nothing is in, up to 2^47, and answer well.
func TestMapsFirstAndUnmapsOfNothing(t *testing.T) {
	f, c := pair(t)
	fd, mem := memfd(t, 1<<20)
	ok(t, c.MapFD(0, 1<<20, fd, 0, true, true))
	for shift := 12; shift <= 47; shift++ {
		ok(t, c.Unmap(1<<40, 1<<shift))
	}
	ok(t, f.get(t).WriteDMA(5, []byte{7}))
	if mem[5] != 7 {
		t.Error("the map is gone")
	}
	ok(t, c.Unmap(0, 1<<31)) // all at once, on detach
	if err := f.get(t).WriteDMA(5, []byte{8}); err == nil {
		t.Error("the map is still there")
	}
}

// One unmap of 2 MiB takes 512 maps of a page each.
func TestOneUnmapOfManyMaps(t *testing.T) {
	f, c := pair(t)
	fd, _ := memfd(t, 2<<20)
	for i := range uint64(512) {
		ok(t, c.MapFD(i<<12, 4096, fd, i<<12, true, true))
	}
	ok(t, f.get(t).WriteDMA(511<<12, []byte{1}))
	ok(t, c.Unmap(0, 2<<20))
	for _, page := range []uint64{0, 1, 255, 511} {
		if err := f.get(t).WriteDMA(page<<12, []byte{1}); err == nil {
			t.Errorf("page %d can still be reached", page)
		}
	}
}

// A function reset is a write to the configuration space, and DEVICE_RESET the machine's: neither touches maps or eventfds.
func TestResetsKeepMapsAndEventfds(t *testing.T) {
	card, err := model.New(model.Config{HostMSIX: true})
	ok(t, err)
	defer card.Close()
	c := dial(t, serve(t, card))
	fd, mem := memfd(t, 64<<10)
	ok(t, c.MapFD(0x10000, 64<<10, fd, 0, true, true))
	ev := eventfd(t)
	ok(t, c.SetVector(regs.VectorErrors, ev))
	for what, reset := range map[string]func() error{
		"function reset": func() error { return c.WriteConfig(regs.CfgDevControl, []byte{0, 0x80}) },
		"device reset":   c.Reset,
	} {
		ok(t, reset())
		ok(t, c.WriteConfig(regs.CfgCommand, []byte{6, 0}))
		ok(t, c.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80}))
		ok(t, card.WaitReady(t.Context()))
		ring(t, c, mem)
		var p [8]byte
		fds := []unix.PollFd{{Fd: int32(ev), Events: unix.POLLIN}}
		for n := 0; n == 0; {
			if n, err = unix.Poll(fds, 20_000); err != nil && err != unix.EINTR {
				t.Fatal(err)
			} else if err == nil && n == 0 {
				t.Fatalf("after a %s: no interrupt", what)
			}
		}
		if _, err := unix.Read(ev, p[:]); err != nil {
			t.Fatal(err)
		}
		if got := ne.Uint32(mem[0x4000:]); got != 0x5555 {
			t.Errorf("after a %s: the response has the tag %#x", what, got)
		}
		clear(mem[0x4000:0x5000])
	}
}

// ring sends a NOP through rings at the start of mem, which the card has at 0x10000, with the event on vector 0.
func ring(t *testing.T, c *Client, mem []byte) {
	t.Helper()
	cmd := regs.Command{Opcode: regs.OpNOP, Tag: 0x5555, Flags: regs.FlagIRQ}
	cmd.Put(mem)
	for _, w := range []struct {
		r regs.Reg
		v uint32
	}{
		{regs.CMDQBaseLo, 0x10000}, {regs.CMDQSize, 16}, {regs.RSPQBaseLo, 0x14000}, {regs.RSPQSize, 16},
		{regs.IntEnable, regs.CauseRspAvail.Mask()}, {regs.IntMask, 0}, {regs.MSIXControl, regs.MSIXSingleVector},
		{regs.DMAControl, regs.DMAEnable}, {regs.DevControl, uint32(regs.ControlRun)},
		{regs.RSPQCtrl, regs.QueueEnable}, {regs.CMDQCtrl, regs.QueueEnable}, {regs.CMDQTail, 1},
	} {
		var p [4]byte
		ne.PutUint32(p[:], w.v)
		ok(t, c.Write(uint64(w.r), p[:])) // posted, in order
	}
}

// With bus mastering off the mapping is still there: the card itself must not use it.
func TestNoDMAWithoutBusMaster(t *testing.T) {
	card, err := model.New(model.Config{HostMSIX: true})
	ok(t, err)
	defer card.Close()
	c := dial(t, serve(t, card))
	fd, mem := memfd(t, 64<<10)
	ok(t, c.MapFD(0x10000, 64<<10, fd, 0, true, true))
	ok(t, c.WriteConfig(regs.CfgCommand, []byte{2, 0}))
	ok(t, card.WaitReady(t.Context()))
	ring(t, c, mem)
	var p [4]byte
	ok(t, c.Read(uint64(regs.CMDQStatus), p[:]))
	if v := ne.Uint32(p[:]); v&regs.CMDQPaused == 0 {
		t.Errorf("CMDQ_STATUS %#x: the ring is not paused", v)
	}
	if tag := ne.Uint32(mem[0x4000:]); tag != 0 {
		t.Error("the card has written")
	}
	ok(t, c.WriteConfig(regs.CfgCommand, []byte{6, 0}))
	for ok(t, c.Read(uint64(regs.RSPQTail), p[:])); ne.Uint32(p[:]) != 1; {
		ok(t, c.Read(uint64(regs.RSPQTail), p[:]))
	}
	if tag := ne.Uint32(mem[0x4000:]); tag != 0x5555 {
		t.Errorf("tag %#x", tag)
	}
}

// An eventfd adds up: who waits gets one wake-up for many interrupts.
func TestEventfdAddsUp(t *testing.T) {
	f, c := pair(t)
	ev := eventfd(t)
	ok(t, c.SetVector(3, ev))
	for range 50 {
		f.get(t).Interrupt(3)
	}
	if n := count(ev); n != 50 {
		t.Errorf("%d", n)
	}
}

// BAR0's low bits say what it is: QEMU would take it for a 32-bit one else. The first vectors message has no descriptor.
func TestBarBitsAndFirstVectorMessage(t *testing.T) {
	card, err := model.New(model.Config{HostMSIX: true})
	ok(t, err)
	defer card.Close()
	c := dial(t, serve(t, card))
	var p [4]byte
	ok(t, c.ReadConfig(regs.CfgBAR0, p[:]))
	if p[0]&0xF != 0xC {
		t.Errorf("BAR0 reads %#x", p)
	}
	ok(t, c.SetVector(0, -1))
}
