package net_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	stdnet "net"
	"os"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/hv/virtio/net"
	"quantavirt/internal/qverr"
)

const (
	rx, tx     = 0, 1
	headerSize = 12
	tapName    = "qvnettest"
)

var guestMAC = stdnet.HardwareAddr{0x02, 0x51, 0x56, 0, 0, 1}

// newTAP makes a TAP in a network namespace of its own, and a raw socket on the
// host's side of it. The test's thread stays in the namespace and is thrown away.
func newTAP(t testing.TB, flags uint16) (tap *os.File, host int) {
	t.Helper()
	taps, host := newTAPs(t, flags, 1)
	return taps[0], host
}

// newTAPs makes a TAP with n queues.
func newTAPs(t testing.TB, flags uint16, n int) (taps []*os.File, host int) {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("network namespaces need root")
	}
	runtime.LockOSThread()
	if err := unix.Unshare(unix.CLONE_NEWNET); err != nil {
		t.Skipf("no network namespace: %v", err)
	}
	for range n {
		fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
		if err != nil {
			t.Skipf("no TAP: %v", err)
		}
		taps = append(taps, os.NewFile(uintptr(fd), tapName))
		req, err := unix.NewIfreq(tapName)
		if err != nil {
			t.Fatal(err)
		}
		req.SetUint16(flags)
		if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, req); err != nil {
			t.Skipf("no TAP: %v", err)
		}
	}
	return taps, openHost(t)
}

// openHost sets the interface up and opens a packet socket on it.
func openHost(t testing.TB) int {
	t.Helper()
	const anyProtocol = 0x0300 // htons(ETH_P_ALL)
	host, err := unix.Socket(unix.AF_PACKET, unix.SOCK_RAW|unix.SOCK_CLOEXEC, anyProtocol)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { unix.Close(host) })
	req, err := unix.NewIfreq(tapName)
	if err != nil {
		t.Fatal(err)
	}
	req.SetUint16(unix.IFF_UP | unix.IFF_NOARP)
	if err := unix.IoctlIfreq(host, unix.SIOCSIFFLAGS, req); err != nil {
		t.Fatal(err)
	}
	if err := unix.IoctlIfreq(host, unix.SIOCGIFINDEX, req); err != nil {
		t.Fatal(err)
	}
	if err := unix.Bind(host, &unix.SockaddrLinklayer{Protocol: anyProtocol, Ifindex: int(req.Uint32())}); err != nil {
		t.Fatal(err)
	}
	if err := unix.SetsockoptTimeval(host, unix.SOL_SOCKET, unix.SO_RCVTIMEO, &unix.Timeval{Sec: 10}); err != nil {
		t.Fatal(err)
	}
	return host
}

const goodFlags = unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR

func frame(payload string) []byte {
	b := append([]byte{0x02, 0, 0, 0, 0, 9}, guestMAC...)
	b = append(b, 0x88, 0xb5) // local experimental
	return append(b, payload...)
}

// receiveHost reads frames until it finds one of ours.
func receiveHost(t testing.TB, host int) []byte {
	t.Helper()
	buf := make([]byte, 70_000)
	for {
		n, err := unix.Read(host, buf)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			t.Fatal(err)
		}
		if n > 14 && buf[12] == 0x88 && buf[13] == 0xb5 {
			return buf[:n]
		}
	}
}

// receiveGuest waits for one of our frames among what the host's kernel sends.
func receiveGuest(t testing.TB, q *driver.Queue, buffers map[uint16]driver.Buffer) []byte {
	t.Helper()
	for {
		head, n := q.Wait()
		data := q.Bytes(buffers[head])[:n]
		if n > headerSize+14 && data[headerSize+12] == 0x88 && data[headerSize+13] == 0xb5 {
			return data
		}
	}
}

func TestUserSpace(t *testing.T) {
	tap, host := newTAP(t, goodFlags)
	dev, err := net.New([]*os.File{tap}, net.Options{MAC: guestMAC, MTU: 1400})
	if err != nil {
		t.Fatal(err)
	}
	d := driver.New(t, dev, driver.NewMemory(t))
	t.Cleanup(dev.Close)
	for i, b := range guestMAC {
		if got := byte(d.Read(4, uint64(i), 1)); got != b {
			t.Errorf("MAC byte %d is %#x", i, got)
		}
	}
	if status, mtu := d.Read(4, 6, 2), d.Read(4, 10, 2); status != 1 || mtu != 1400 {
		t.Errorf("status %d, MTU %d", status, mtu)
	}
	for range 3 { // over resets
		d.Start(0)
		testTraffic(t, d, dev, host)
	}
	if dev.Stats().TxErrors != 3*2 {
		t.Errorf("%d errors", dev.Stats().TxErrors)
	}
}

func testTraffic(t *testing.T, d *driver.Driver, dev *net.Device, host int) {
	t.Helper()
	out := d.Queues[tx]
	header := make([]byte, headerSize)
	out.Do(out.Out(header), out.Out(frame("to the host")))
	if got := receiveHost(t, host); !bytes.Equal(got, frame("to the host")) {
		t.Errorf("host got %q", got)
	}
	// Not even a header, and an empty packet.
	out.Do(out.Out(header[:5]))
	out.Do(out.Out(header))

	in := d.Queues[rx]
	buffers := map[uint16]driver.Buffer{}
	for range 8 {
		b := in.In(2000)
		buffers[in.Add(b)] = b
	}
	in.Kick()
	if _, err := unix.Write(host, frame("to the guest")); err != nil {
		t.Fatal(err)
	}
	got := receiveGuest(t, in, buffers)
	if !bytes.Equal(got[headerSize:], frame("to the guest")) || binary.LittleEndian.Uint16(got[10:]) != 1 {
		t.Errorf("guest got %q", got)
	}
	if err := d.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	if _, err := unix.Write(host, frame("during the pause")); err != nil {
		t.Fatal(err)
	}
	d.Interrupted(1, 30)
	if _, _, ok := in.Done(); ok {
		t.Error("guest memory was written during the pause")
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	if got := receiveGuest(t, in, buffers); !bytes.Equal(got[headerSize:], frame("during the pause")) {
		t.Errorf("after the pause: %q", got)
	}
	if dev.Stats().RxPackets == 0 || dev.Stats().TxPackets == 0 {
		t.Error("packets are not counted")
	}
}

// TestSmallBuffer: a packet that does not fit is dropped, and the buffer is given back.
func TestSmallBuffer(t *testing.T) {
	tap, host := newTAP(t, goodFlags)
	dev, err := net.New([]*os.File{tap}, net.Options{MAC: guestMAC})
	if err != nil {
		t.Fatal(err)
	}
	d := driver.New(t, dev, driver.NewMemory(t))
	t.Cleanup(dev.Close)
	d.Start(0)
	q := d.Queues[rx]
	q.Add(q.In(20))
	q.Kick()
	if _, err := unix.Write(host, frame("too long for it")); err != nil {
		t.Fatal(err)
	}
	if _, n := q.Wait(); n != 0 || dev.Stats().RxDropped != 1 {
		t.Errorf("%d bytes, %d dropped", n, dev.Stats().RxDropped)
	}
}

func TestOffloadRules(t *testing.T) {
	tap, _ := newTAP(t, goodFlags)
	dev, err := net.New([]*os.File{tap}, net.Options{MAC: guestMAC})
	if err != nil {
		t.Fatal(err)
	}
	d := driver.New(t, dev, driver.NewMemory(t))
	t.Cleanup(dev.Close)
	const guestCSum, mac = 1 << 1, 1 << 5
	d.Start(guestCSum | mac)
	if !d.Transport.Ready() {
		t.Errorf("status %#x, %v", d.Status(), d.Logs())
	}
}

func TestRefused(t *testing.T) {
	noHeader, _ := newTAP(t, unix.IFF_TAP|unix.IFF_NO_PI)
	defer noHeader.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	for _, tc := range []struct {
		name string
		tap  *os.File
		opts net.Options
		want qverr.Code
	}{
		{"no header", noHeader, net.Options{MAC: guestMAC}, qverr.NetTAP},
		{"not a TAP", null, net.Options{MAC: guestMAC}, qverr.NetTAP},
		{"no MAC", noHeader, net.Options{}, qverr.NetMAC},
	} {
		if _, err := net.New([]*os.File{tc.tap}, tc.opts); qverr.CodeOf(err) != tc.want {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}

func TestNotVhost(t *testing.T) {
	tap, _ := newTAP(t, goodFlags)
	defer tap.Close()
	null, err := os.OpenFile("/dev/null", os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer null.Close()
	mem := driver.NewMemory(t)
	defer mem.Close()
	if _, err := net.New([]*os.File{tap}, net.Options{MAC: guestMAC, Vhost: []*os.File{null}, Mem: mem}); !errors.Is(err, qverr.NetVhost) {
		t.Errorf("%v", err)
	}
}
