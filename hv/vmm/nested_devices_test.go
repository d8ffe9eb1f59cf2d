package vmm_test

import (
	"bufio"
	"context"
	"fmt"
	"io"
	"net"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/vmm"
)

const (
	guestQueues = 2
	portName    = "org.quantavirt.test"
	// followTime is how long the guest has to follow a balloon: it reports free pages
	// every two seconds.
	followTime = 30 * time.Second
	// smallReports has a guest report blocks of 64 KiB: by itself Linux reports 2 MiB,
	// and only above 64 MiB of free memory.
	smallReports = "page_reporting.page_reporting_order=4 "
)

// testStreams sends data both ways on several connections at once, in segments, over all
// queues.
func (g *guest) testStreams(t *testing.T) {
	g.t = t
	const streams, size = 4, 4 << 20
	l, err := net.Listen("tcp", "10.9.0.1:0")
	g.must(err)
	defer l.Close()
	go func() {
		for {
			conn, err := l.Accept()
			if err != nil {
				return
			}
			go func() {
				defer conn.Close()
				_, _ = io.Copy(conn, conn)
			}()
		}
	}()
	before, err := g.client.Stats(t.Context())
	g.must(err)
	began := time.Now()
	if out := g.ask(fmt.Sprintf("guesttool echo %s %d %d", l.Addr(), streams, size)); out != "equal" {
		t.Errorf("%s", out)
	}
	took := time.Since(began)
	after, err := g.client.Stats(t.Context())
	g.must(err)
	a, b := before.NICs[0], after.NICs[0]
	t.Logf("%d MiB both ways in %v, %d packets to the guest and %d from it", streams*size>>20, took.Round(time.Millisecond),
		b.RxPackets-a.RxPackets, b.TxPackets-a.TxPackets)
	if b.Queues != guestQueues || !b.Link {
		t.Errorf("%+v", b)
	}
	// Acknowledgements are small and there are many: the average says that data comes in segments.
	if !b.Offloaded && (b.RxBytes-a.RxBytes < 2*1500*(b.RxPackets-a.RxPackets) || b.TxBytes-a.TxBytes < 2*1500*(b.TxPackets-a.TxPackets)) {
		t.Errorf("no segments: %+v, then %+v", a, b)
	}
	for i := range guestQueues {
		if n := g.ask(fmt.Sprintf("grep -E 'virtio[0-9]+-(in|out)put.%d' /proc/interrupts | grep -cvE ':( +0)+ '", i)); n == "0" {
			t.Errorf("pair %d was not used", i)
		}
	}
}

// testLink pulls the cable: the guest notices, and goes on when it is back.
func (g *guest) testLink(t *testing.T) {
	g.t = t
	for _, up := range []bool{false, true} {
		g.must(g.client.SetLink(t.Context(), "nic0", up))
		want := map[bool]string{false: "0", true: "1"}[up]
		g.ask("until [ $(cat /sys/class/net/eth0/carrier) = " + want + " ]; do sleep 0.1; done")
	}
	g.ask("ping -c 1 -W 5 10.9.0.1 >/dev/null")
}

// follow waits until the balloon is as is wanted.
func (g *guest) follow(what string, ok func(vmm.Stats) bool) vmm.Stats {
	g.t.Helper()
	deadline := time.Now().Add(followTime)
	for {
		s, err := g.client.Stats(g.t.Context())
		g.must(err)
		if ok(s) {
			return s
		}
		if time.Now().After(deadline) {
			g.t.Fatalf("%s: %+v, %d bytes in use", what, *s.Balloon, s.GuestTouched)
		}
		<-time.After(100 * time.Millisecond)
	}
}

// testBalloon has the guest give back what it does not use, by itself and when asked.
func (g *guest) testBalloon(t *testing.T) {
	g.t = t
	ctx := t.Context()
	g.ask("rm -f /tmp/[rn]; dd if=/dev/zero of=/tmp/fill bs=1M count=24 2>/dev/null")
	full := g.follow("statistics", func(s vmm.Stats) bool { return s.Balloon.Guest != nil })
	if b := full.Balloon; !b.Ready || b.Actual != guestMemory || b.Guest.Total == 0 || b.Guest.Free == 0 || b.Guest.Free >= b.Guest.Total {
		t.Errorf("%+v, %+v", b, b.Guest)
	}
	g.ask("rm /tmp/fill")
	reported := g.follow("free page reporting", func(s vmm.Stats) bool {
		return s.Balloon.Reported > full.Balloon.Reported && s.GuestTouched < full.GuestTouched-12<<20
	})
	t.Logf("%d MiB in use with 24 MiB written, %d after they were free; %d MiB were reported", full.GuestTouched>>20,
		reported.GuestTouched>>20, reported.Balloon.Reported>>20)
	const target = guestMemory - 32<<20
	g.must(g.client.SetBalloon(ctx, target))
	small := g.follow("inflation", func(s vmm.Stats) bool { return s.Balloon.Actual == target })
	if small.Balloon.Inflated < 32<<20 || small.Balloon.Target != target {
		t.Errorf("%+v", small.Balloon)
	}
	g.must(g.client.SetBalloon(ctx, guestMemory))
	g.follow("deflation", func(s vmm.Stats) bool { return s.Balloon.Actual == guestMemory })
	// All of it can be used again.
	g.ask("dd if=/dev/urandom of=/tmp/r bs=1M count=8 2>/dev/null && cp /tmp/r /tmp/s && cmp /tmp/r /tmp/s && rm /tmp/r /tmp/s")
}

// testPort talks with a program in the guest over a named port.
func (g *guest) testPort(t *testing.T) {
	g.t = t
	conn, err := g.client.Console(t.Context(), portName)
	g.must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "from the host\n")
	g.must(err)
	g.ask(`exec 4<>/dev/$(basename $(dirname $(grep -l ` + portName + ` /sys/class/virtio-ports/*/name))); read -r l <&4; echo "heard $l" >&4; exec 4>&-`)
	want := "heard from the host\n"
	buf := make([]byte, len(want))
	if _, err := io.ReadFull(conn, buf); err != nil || string(buf) != want {
		t.Errorf("%q, %v", buf, err)
	}
	g.must(g.client.SetConsoleSize(t.Context(), vmm.ConsoleSize{Columns: 132, Rows: 43}))
	if s := g.ask("stty -F /dev/hvc0 size"); s != "43 132" {
		t.Errorf("the terminal has the size %s", s)
	}
}

// testSockets goes through the vsock device on UNIX sockets, both ways.
func (g *guest) testSockets(t *testing.T) {
	g.t = t
	ctx, cancel := context.WithCancel(t.Context())
	defer cancel()
	served := make(chan error, 1)
	go func() { served <- g.process.ServeVsock(ctx) }()
	path := vmm.VsockPath(g.spec.RunDir, g.spec.Name)
	l, err := net.Listen("unix", fmt.Sprintf("%s_%d", path, vsockPort))
	g.must(err)
	defer l.Close()
	go func() {
		conn, err := l.Accept()
		if err != nil {
			return
		}
		defer conn.Close()
		line, _ := bufio.NewReader(conn).ReadString('\n')
		fmt.Fprintf(conn, "heard %s", line)
	}()
	if s := g.ask(fmt.Sprintf("guesttool vsock %d ping", vsockPort)); s != "heard ping" {
		t.Errorf("from the guest: %q", s)
	}
	g.ask("guesttool answer 6000 >/tmp/answer 2>&1 & until grep -q listening /tmp/answer; do sleep 0.1; done")
	conn, err := net.Dial("unix", path)
	g.must(err)
	defer conn.Close()
	_, err = io.WriteString(conn, "CONNECT 6000\nhello\n")
	g.must(err)
	answer, err := io.ReadAll(conn)
	g.must(err)
	if !strings.HasPrefix(string(answer), "OK ") || !strings.HasSuffix(string(answer), "\nguest heard hello\n") {
		t.Errorf("to the guest: %q", answer)
	}
	cancel()
	g.must(<-served)
}
