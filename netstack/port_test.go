package netstack

import (
	"bytes"
	"io"
	"net"
	"os"
	"os/exec"
	"strings"
	"testing"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/nstest"
	"quantavirt/netstack/rtnl"
	"quantavirt/netstack/tap"
)

var vm = uuid.MustParse("6f1f2a3b-1111-4222-8333-444455556666")

func testPort(index int) Port {
	return Port{ID: PortID(vm, index), MAC: MACFor(vm, index), Hostname: "web"}
}

func TestPort(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	p := testPort(0)
	queues, name, err := n.AddPort(t.Context(), "default", p)
	if err != nil {
		t.Fatal(err)
	}
	f := queues[0]
	defer f.Close()
	link, err := rtnl.Link(name)
	if err != nil || link == nil {
		t.Fatalf("no link %s: %v", name, err)
	}
	if want := "qvt" + p.ID[:8]; name != want {
		t.Errorf("name %s, want %s", name, want)
	}
	if o, ok := tap.OwnerOf(link); !ok || o.PortID != p.ID || o.MAC != p.MAC || o.Hostname != "web" {
		t.Errorf("owner %+v, %v", o, ok)
	}
	detail := nstest.Run(t, "ip", "-d", "link", "show", name)
	for _, want := range []string{"mtu 1500", "master qvbr0", "vnet_hdr on", "persist off", "pi off"} {
		if !strings.Contains(detail, want) {
			t.Errorf("no %q in\n%s", want, detail)
		}
	}
	if strings.Contains(detail, "multi_queue numqueues") {
		t.Errorf("more than one queue:\n%s", detail)
	}
	if v6 := nstest.Run(t, "ip", "-6", "addr", "show", "dev", name); strings.Contains(v6, "inet6") {
		t.Errorf("IPv6 on a TAP device: %s", v6)
	}
	arpThrough(t, f, p.MAC)

	st := n.Status().Networks[0].Ports
	if len(st) != 1 || st[0] != (PortInfo{ID: p.ID, MAC: p.MAC, TAP: name, Attached: true}) {
		t.Errorf("ports %+v", st)
	}
	if err := n.RemovePort(t.Context(), "default", p.ID); err != nil {
		t.Error(err)
	}
	if l, _ := rtnl.Link(name); l != nil {
		t.Error("the removed port is still there")
	}
	if err := n.RemovePort(t.Context(), "default", p.ID); err != nil {
		t.Errorf("removing it twice: %v", err)
	}
}

// arpThrough asks for the gateway through the descriptor, as a guest would.
func arpThrough(t *testing.T, f *os.File, from MAC) {
	t.Helper()
	gw, guestIP := net.ParseIP(gateway).To4(), net.IPv4(192, 168, 200, 9).To4()
	frame := make([]byte, tap.HeaderSize)
	frame = append(frame, bytes.Repeat([]byte{0xff}, 6)...)
	frame = append(frame, from[:]...)
	frame = append(frame, 8, 6, 0, 1, 8, 0, 6, 4, 0, 1)
	frame = append(frame, from[:]...)
	frame = append(frame, guestIP...)
	frame = append(frame, 0, 0, 0, 0, 0, 0)
	frame = append(frame, gw...)
	if _, err := f.Write(frame); err != nil {
		t.Fatal(err)
	}
	buf := make([]byte, 2048)
	for {
		n, err := f.Read(buf)
		if err != nil {
			t.Fatal(err)
		}
		b := buf[tap.HeaderSize:n]
		if len(b) >= 42 && b[12] == 8 && b[13] == 6 && b[21] == 2 && bytes.Equal(b[28:32], gw) && bytes.Equal(b[:6], from[:]) {
			return
		}
	}
}

// TestPortLife: a device ends with the process that holds it, however that
// ends, and not with the manager's process.
func TestPortLife(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	queues, name, err := n.AddPort(t.Context(), "default", testPort(0))
	if err != nil {
		t.Fatal(err)
	}
	vmm := exec.Command("cat") // holds the descriptor and waits
	vmm.ExtraFiles = []*os.File{queues[0]}
	stdin, err := vmm.StdinPipe()
	if err != nil {
		t.Fatal(err)
	}
	defer stdin.Close()
	vmm.Stdout = io.Discard
	if err := vmm.Start(); err != nil {
		t.Fatal(err)
	}
	queues[0].Close()
	n.Close() // the daemon dies

	n.start(t)
	n.up(t)
	ports := n.Status().Networks[0].Ports
	if len(ports) != 1 || ports[0].ID != testPort(0).ID || !ports[0].Attached {
		t.Errorf("the new manager sees %+v", ports)
	}
	// What the running VM has is still taken.
	_, _, err = n.AddPort(t.Context(), "default", testPort(0))
	if qverr.CodeOf(err) != qverr.NetTAP || !strings.Contains(err.Error(), "belongs to another process") {
		t.Errorf("the same port again: %v", err)
	}
	p := testPort(1)
	p.MAC = testPort(0).MAC
	if _, _, err = n.AddPort(t.Context(), "lab", p); qverr.CodeOf(err) != qverr.NetMAC {
		t.Errorf("the same MAC again: %v", err)
	}

	if err := vmm.Process.Kill(); err != nil {
		t.Fatal(err)
	}
	vmm.Wait()
	if l, _ := rtnl.Link(name); l != nil {
		t.Error("the device outlived its process")
	}
	queues, _, err = n.AddPort(t.Context(), "default", testPort(0))
	if err != nil {
		t.Fatalf("after the kill: %v", err)
	}
	queues[0].Close()
}

func TestPortErrors(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	good := testPort(0)
	with := func(fn func(*Port)) Port { p := good; fn(&p); return p }
	for _, c := range []struct {
		name, network string
		port          Port
		want          qverr.Code
	}{
		{"unknown network", "nowhere", good, qverr.NoEnt},
		{"no MAC", "default", with(func(p *Port) { p.MAC = MAC{} }), qverr.NetMAC},
		{"multicast MAC", "default", with(func(p *Port) { p.MAC[0] |= 1 }), qverr.NetMAC},
		{"tiny MTU", "default", with(func(p *Port) { p.MTU = 67 }), qverr.NetMTU},
		{"17 queues", "default", with(func(p *Port) { p.Queues = 17 }), qverr.NetTAP},
		{"larger than the network", "default", with(func(p *Port) { p.MTU = 9000 }), qverr.NetMTU},
	} {
		f, _, err := n.AddPort(t.Context(), c.network, c.port)
		if qverr.CodeOf(err) != c.want {
			t.Errorf("%s: %v, want %v", c.name, err, c.want)
		}
		if f != nil {
			f[0].Close()
		}
	}
	if left := nstest.Run(t, "ip", "-o", "link"); strings.Contains(left, "qvt") {
		t.Errorf("left behind:\n%s", left)
	}
	if err := n.RemovePort(t.Context(), "nowhere", "x"); qverr.CodeOf(err) != qverr.NoEnt {
		t.Errorf("RemovePort: %v", err)
	}
	if _, err := n.Leases("nowhere"); qverr.CodeOf(err) != qverr.NoEnt {
		t.Errorf("Leases: %v", err)
	}
}

// TestQueues: a port has as many queues as are asked for, and ends with the last.
func TestQueues(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.up(t)
	p := testPort(0)
	p.Queues = 3
	queues, name, err := n.AddPort(t.Context(), "default", p)
	if err != nil {
		t.Fatal(err)
	}
	if len(queues) != 3 {
		t.Fatalf("%d queues", len(queues))
	}
	detail := nstest.Run(t, "ip", "-d", "link", "show", name)
	for _, want := range []string{"multi_queue numqueues 3", "vnet_hdr on", "persist off"} {
		if !strings.Contains(detail, want) {
			t.Errorf("no %q in\n%s", want, detail)
		}
	}
	for i, f := range queues {
		if l, err := rtnl.Link(name); err != nil || l == nil {
			t.Errorf("gone before queue %d was closed: %v", i, err)
		}
		f.Close()
	}
	if l, _ := rtnl.Link(name); l != nil {
		t.Error("the device outlives its queues")
	}
}
