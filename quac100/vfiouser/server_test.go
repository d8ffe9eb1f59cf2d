package vfiouser

import (
	"bytes"
	"context"
	"errors"
	"io"
	"log/slog"
	"net"
	"path/filepath"
	"slices"
	"sync"
	"syscall"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// fakeCard records what reaches the device.
type fakeCard struct {
	mu     sync.Mutex
	bar    [regs.BARSize]byte
	cfg    [regs.CfgSize]byte
	sizes  []int
	resets int
	host   model.Host
}

func (f *fakeCard) Read(off uint64, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sizes = append(f.sizes, len(p))
	copy(p, f.bar[off:])
}

func (f *fakeCard) Write(off uint64, p []byte) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.sizes = append(f.sizes, len(p))
	copy(f.bar[off:], p)
}

func (f *fakeCard) ReadConfig(off int, p []byte) {
	f.with(func() { copy(p, f.cfg[off:]) })
}

func (f *fakeCard) WriteConfig(off int, p []byte) {
	f.with(func() { copy(f.cfg[off:], p) })
}

// with looks at the card; what happened before came through a socket, which the race detector does not see.
func (f *fakeCard) with(do func()) {
	f.mu.Lock()
	defer f.mu.Unlock()
	do()
}

func (f *fakeCard) PowerCycle() {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.resets++
}

func (f *fakeCard) Connect(h model.Host) {
	f.mu.Lock()
	defer f.mu.Unlock()
	f.host = h
}

func (f *fakeCard) get(t *testing.T) model.Host {
	t.Helper()
	f.mu.Lock()
	defer f.mu.Unlock()
	if f.host == nil {
		t.Fatal("nothing is connected")
	}
	return f.host
}

// serve runs a server for dev and returns its socket.
func serve(t *testing.T, dev Device) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "card.sock")
	l, err := Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(context.Background())
	done := make(chan error, 1)
	go func() { done <- Serve(ctx, l, dev, slog.New(slog.DiscardHandler)) }()
	t.Cleanup(func() {
		cancel()
		if err := <-done; err != nil {
			t.Error(err)
		}
	})
	return path
}

func dial(t *testing.T, path string) *Client {
	t.Helper()
	c, err := Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { c.Close() })
	return c
}

func pair(t *testing.T) (*fakeCard, *Client) {
	t.Helper()
	f := &fakeCard{}
	return f, dial(t, serve(t, f))
}

func ok(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

func eventfd(t *testing.T) int {
	t.Helper()
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK|unix.EFD_CLOEXEC)
	ok(t, err)
	t.Cleanup(func() { unix.Close(fd) })
	return fd
}

// count reads an eventfd without waiting.
func count(fd int) uint64 {
	var b [8]byte
	if n, err := unix.Read(fd, b[:]); err != nil || n != 8 {
		return 0
	}
	return ne.Uint64(b[:])
}

func memfd(t *testing.T, size int) (int, []byte) {
	t.Helper()
	fd, mem, err := NewMemfd(size)
	ok(t, err)
	t.Cleanup(func() { unix.Munmap(mem); unix.Close(fd) })
	return fd, mem
}

func TestRegions(t *testing.T) {
	f, c := pair(t)
	f.with(func() { f.bar[0x100], f.cfg[0x40] = 0x11, 0x22 })
	var b [4]byte
	ok(t, c.Read(0x100, b[:]))
	if b[0] != 0x11 {
		t.Errorf("BAR0 reads %x", b)
	}
	ok(t, c.ReadConfig(0x40, b[:1]))
	if b[0] != 0x22 {
		t.Errorf("configuration reads %x", b)
	}
	var whole [regs.CfgSize]byte
	ok(t, c.ReadConfig(0, whole[:]))
	ok(t, c.WriteConfig(4, []byte{6, 0}))
	f.with(func() {
		if f.cfg[4] != 6 {
			t.Error("the command register was not written")
		}
	})
	// A posted write is seen by the next read.
	for i := range byte(100) {
		ok(t, c.Write(0x80, []byte{i, 0, 0, 0}))
		ok(t, c.Read(0x80, b[:]))
		if b[0] != i {
			t.Fatalf("read %d after writing %d", b[0], i)
		}
	}
	f.with(func() { f.sizes = nil })
	ok(t, c.Read(0x10C, make([]byte, 28)))
	f.with(func() {
		if !slices.Equal(f.sizes, []int{4, 8, 8, 8}) {
			t.Errorf("a read of 28 bytes became %v", f.sizes)
		}
	})
	for _, r := range []regionIO{
		{0, 1, 4, nil}, {0, 9, 4, nil}, {regs.BARSize, 0, 4, nil}, {regs.BARSize - 2, 0, 4, nil}, {^uint64(0), 0, 4, nil},
		{0, 0, 0, nil}, {0, 0, ^uint32(0), nil}, {regs.CfgSize, 7, 1, nil},
	} {
		if _, err := c.call(cmdRegionRead, r.append(nil)); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("read of %+v: %v", r, err)
		}
	}
	short := regionIO{offset: 0, region: 0, count: 8, data: []byte{1, 2, 3}}
	if _, err := c.call(cmdRegionWrite, short.append(nil)); !errors.Is(err, syscall.EINVAL) {
		t.Errorf("write with too little data: %v", err)
	}
}

func TestInfo(t *testing.T) {
	_, c := pair(t)
	out, err := c.call(cmdGetInfo, u32s(16, 0, 0, 0))
	ok(t, err)
	if !bytes.Equal(out, u32s(16, 3, 9, 5)) {
		t.Errorf("device info %x", out)
	}
	for index, want := range map[uint32][2]uint64{0: {3, regs.BARSize}, 1: {}, 5: {}, 6: {}, 7: {3, regs.CfgSize}, 8: {}} {
		out, err := c.call(cmdGetRegionInfo, u32s(32, 0, index, 0, 0, 0, 0, 0))
		ok(t, err)
		if len(out) != 32 || uint64(ne.Uint32(out[4:])) != want[0] || ne.Uint64(out[16:]) != want[1] || ne.Uint32(out[8:]) != index {
			t.Errorf("region %d: %x", index, out)
		}
	}
	for index, want := range map[uint32][2]uint32{0: {}, 1: {}, 2: {1, 16}, 3: {}, 4: {}} {
		out, err := c.call(cmdGetIRQInfo, u32s(16, 0, index, 0))
		ok(t, err)
		if len(out) != 16 || ne.Uint32(out[4:]) != want[0] || ne.Uint32(out[12:]) != want[1] {
			t.Errorf("irq %d: %x", index, out)
		}
	}
	for _, cmd := range []command{cmdGetRegionInfo, cmdGetIRQInfo} {
		if _, err := c.call(cmd, u32s(32, 0, 9, 0, 0, 0, 0, 0)); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("command %d, index 9: %v", cmd, err)
		}
	}
	for _, cmd := range []command{cmdDMAMap, cmdDMAUnmap, cmdGetRegionInfo, cmdGetIRQInfo, cmdSetIRQs, cmdRegionRead, cmdRegionWrite} {
		if _, err := c.call(cmd, []byte{1, 2}); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("command %d with two bytes: %v", cmd, err)
		}
	}
	for _, cmd := range []command{6, 15, 16, 99} {
		if _, err := c.call(cmd, nil); !errors.Is(err, syscall.EOPNOTSUPP) {
			t.Errorf("command %d: %v", cmd, err)
		}
	}
	if _, err := c.call(cmdVersion, []byte{0, 0, 0, 0}); err == nil {
		t.Error("a second version is accepted")
	}
}

func TestVectors(t *testing.T) {
	f, c := pair(t)
	h := f.get(t)
	a, b := eventfd(t), eventfd(t)
	h.Interrupt(3) // before there is an eventfd: kept
	ok(t, c.SetVector(3, a))
	if n := count(a); n != 1 {
		t.Errorf("the early message came %d times", n)
	}
	ok(t, c.SetVector(4, b))
	h.Interrupt(3)
	h.Interrupt(4)
	h.Interrupt(4)
	h.Interrupt(99)
	if x, y := count(a), count(b); x != 1 || y != 2 {
		t.Errorf("messages: %d and %d", x, y)
	}
	ok(t, c.SetVector(3, b)) // moves
	h.Interrupt(3)
	if x, y := count(a), count(b); x != 0 || y != 1 {
		t.Errorf("after moving: %d and %d", x, y)
	}
	ok(t, c.SetVector(3, -1))
	ok(t, c.DisableVectors())
	h.Interrupt(4)
	if n := count(b); n != 0 {
		t.Errorf("%d messages while disabled", n)
	}
	ok(t, c.SetVector(4, b)) // fired while disabled: comes now
	if n := count(b); n != 1 {
		t.Errorf("%d messages after enabling", n)
	}
	// The client may trigger a vector itself.
	s := irqSet{flags: irqNone | irqTrigger, index: irqMSIX, start: 4, count: 1}
	_, err := c.call(cmdSetIRQs, s.append(nil))
	ok(t, err)
	s = irqSet{flags: irqBool | irqTrigger, index: irqMSIX, start: 3, count: 2, data: []byte{1, 1}}
	_, err = c.call(cmdSetIRQs, s.append(nil))
	ok(t, err)
	if n := count(b); n != 2 {
		t.Errorf("%d messages triggered by the client", n)
	}
}

func TestBadSetIRQs(t *testing.T) {
	_, c := pair(t)
	fd := eventfd(t)
	p := make([]int, 2)
	ok(t, unix.Pipe(p))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	for what, x := range map[string]struct {
		s   irqSet
		fds []int
	}{
		"INTx":                  {irqSet{flags: irqEventfd | irqTrigger, index: 0, count: 1}, []int{fd}},
		"an index beyond":       {irqSet{flags: irqNone | irqTrigger, index: 9}, nil},
		"masking":               {irqSet{flags: irqNone | irqMask, index: irqMSIX, count: 1}, nil},
		"unmasking":             {irqSet{flags: irqNone | irqUnmask, index: irqMSIX, count: 1}, nil},
		"vector 16":             {irqSet{flags: irqEventfd | irqTrigger, index: irqMSIX, start: 16, count: 1}, []int{fd}},
		"vectors up to 17":      {irqSet{flags: irqEventfd | irqTrigger, index: irqMSIX, start: 15, count: 2}, []int{fd, fd}},
		"a start that wraps":    {irqSet{flags: irqEventfd | irqTrigger, index: irqMSIX, start: ^uint32(0), count: 2}, []int{fd, fd}},
		"a huge count":          {irqSet{flags: irqEventfd | irqTrigger, index: irqMSIX, count: ^uint32(0)}, nil},
		"fewer eventfds":        {irqSet{flags: irqEventfd | irqTrigger, index: irqMSIX, count: 3}, []int{fd, fd}},
		"a pipe":                {irqSet{flags: irqEventfd | irqTrigger, index: irqMSIX, count: 1}, []int{p[1]}},
		"fewer bools":           {irqSet{flags: irqBool | irqTrigger, index: irqMSIX, count: 4, data: []byte{1}}, nil},
		"two kinds of data":     {irqSet{flags: irqNone | irqBool | irqTrigger, index: irqMSIX, count: 1, data: []byte{1}}, nil},
		"no action":             {irqSet{flags: irqEventfd, index: irqMSIX, count: 1}, []int{fd}},
		"an error irq with one": {irqSet{flags: irqEventfd | irqTrigger, index: 3, count: 1}, []int{fd}},
	} {
		if _, err := c.call(cmdSetIRQs, x.s.append(nil), x.fds...); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", what, err)
		}
	}
	s := irqSet{flags: irqNone | irqTrigger, index: 3}
	if _, err := c.call(cmdSetIRQs, s.append(nil)); err != nil {
		t.Errorf("disabling an interrupt that does not exist: %v", err)
	}
}

func TestResetAndNextClient(t *testing.T) {
	f := &fakeCard{}
	path := serve(t, f)
	c := dial(t, path)
	ok(t, c.Reset())
	f.with(func() {
		if f.resets != 1 {
			t.Errorf("%d resets", f.resets)
		}
	})
	fd, _ := memfd(t, 4096)
	ok(t, c.MapFD(0, 4096, fd, 0, true, true))
	h := f.get(t)
	c.Close()
	for range 3 {
		c = dial(t, path) // is answered once the old session has ended
		if err := f.get(t).ReadDMA(0, make([]byte, 8)); !errors.Is(err, model.ErrUnmapped) {
			t.Errorf("a new client inherits memory: %v", err)
		}
		ok(t, c.Read(0, make([]byte, 4)))
		c.Close()
	}
	if err := h.ReadDMA(0, make([]byte, 8)); err == nil {
		t.Error("the old client's memory is still there")
	}
}

func TestListen(t *testing.T) {
	path := filepath.Join(t.TempDir(), "s")
	l, err := Listen(path)
	ok(t, err)
	if _, err := Listen(path); err == nil {
		t.Error("two servers on one socket")
	}
	l.SetUnlinkOnClose(false)
	l.Close()
	l, err = Listen(path) // stale
	ok(t, err)
	l.Close()
	ok(t, unix.Mkfifo(path, 0o600))
	if _, err := Listen(path); err == nil {
		t.Error("a pipe was replaced")
	}
}

// raw connects without any protocol.
func rawDial(t *testing.T, path string) *net.UnixConn {
	t.Helper()
	c, err := net.DialUnix("unix", nil, &net.UnixAddr{Name: path, Net: "unix"})
	ok(t, err)
	t.Cleanup(func() { c.Close() })
	ok(t, c.SetDeadline(time.Now().Add(20*time.Second)))
	return c
}

// Clients that talk nonsense lose their connection, and the next one is served.
func TestMalformedClients(t *testing.T) {
	f := &fakeCard{}
	path := serve(t, f)
	hdr := func(cmd command, size, flags uint32) []byte {
		b := make([]byte, headerSize)
		h := header{id: 1, cmd: cmd, size: size, flags: flags}
		h.put(b)
		return b
	}
	v := func(body string) []byte { return append(hdr(cmdVersion, uint32(headerSize+len(body)), 0), body...) }
	for what, b := range map[string][]byte{
		"nothing":                {},
		"half a header":          hdr(cmdVersion, 20, 0)[:7],
		"half a payload":         hdr(cmdVersion, 40, 0),
		"a size below a header":  hdr(cmdVersion, 15, 0),
		"a huge size":            hdr(cmdVersion, ^uint32(0), 0),
		"a type that is none":    hdr(cmdVersion, 20, 5),
		"no version first":       hdr(cmdReset, 16, 0),
		"an empty version":       hdr(cmdVersion, 16, 0),
		"another major":          v("\x01\x00\x00\x00"),
		"broken JSON":            v("\x00\x00\x00\x00{\"capabilities\":\x00"),
		"JSON of the wrong type": v("\x00\x00\x00\x00{\"capabilities\":{\"max_msg_fds\":\"x\"}}\x00"),
		"noise":                  bytes.Repeat([]byte{0xA5, 0x5A, 0xFF}, 1000),
	} {
		c := rawDial(t, path)
		if _, err := c.Write(b); err != nil {
			t.Errorf("%s: %v", what, err)
		}
		ok(t, c.CloseWrite())
		// The other side has closed: an end, or a reset if it did not read everything.
		if _, err := io.Copy(io.Discard, c); err != nil && !errors.Is(err, syscall.ECONNRESET) {
			t.Errorf("%s: %v", what, err)
		}
		c.Close()
	}
	c := dial(t, path)
	ok(t, c.Read(0, make([]byte, 4)))
}

// A version without JSON, or with keys that nobody knows, is fine.
func TestVersions(t *testing.T) {
	for _, body := range []string{"", "\x00", `{}`, `{"capabilities":{}}`, `{"capabilities":{"migration":{"pgsize":4096},"new":[1]},"x":1}` + "\x00"} {
		path := serve(t, &fakeCard{})
		uc := rawDial(t, path)
		c := conn{UnixConn: uc}
		ok(t, c.write(header{id: 7, cmd: cmdVersion}, append([]byte{0, 0, 3, 0}, body...)))
		m, err := c.receive()
		ok(t, err)
		got, err := parseVersion(m.payload)
		if err != nil || m.flags != typeReply || m.id != 7 || got.major != 0 || got.minor != 0 || got.caps.MaxMsgFDs != maxFDs || got.caps.WriteMultiples {
			t.Errorf("%q: %+v %+v %v", body, m.header, got, err)
		}
		if m.payload[len(m.payload)-1] != 0 {
			t.Error("the JSON does not end with NUL")
		}
	}
}
