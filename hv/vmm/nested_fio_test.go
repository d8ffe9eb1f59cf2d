package vmm_test

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/config"
	"quantavirt/hv/limit"
)

// fioImage is in the directory of the rig: fio with its libraries, as a disk.
const fioImage = "fio.img"

const (
	fioCPUs   = 4
	fioMemory = 192 << 20
	// fioSize is what each of four jobs writes and verifies in each loop.
	fioSize = 2 << 20
	// fioBalloon is what the balloon takes and gives back.
	fioBalloon = 4 << 20
)

// fioLimits are what the disk has between two pauses, in turn.
var fioLimits = []limit.Limits{
	{},
	{Operations: limit.Rate{PerSecond: 1000, Burst: 10}},
	{Bytes: limit.Rate{PerSecond: 4 << 20, Burst: 64 << 10}},
	{Operations: limit.Rate{PerSecond: 3000}, Bytes: limit.Rate{PerSecond: 32 << 20}},
}

// TestFio has fio write and verify a disk on four queues while the VM is paused and
// resumed, the disk's limits change and the balloon moves.
func TestFio(t *testing.T) {
	pauses := rounds(10, 100)
	g := newSpec(t, "fio", "", true)
	program := open(t, filepath.Join(rig(t), fioImage), os.O_RDONLY)
	g.spec.Files["fio"] = program
	m := &g.spec.Machine
	m.CPUs, m.Memory, m.CPU.Topology = fioCPUs, fioMemory, config.Topology{Sockets: 1, Cores: fioCPUs, Threads: 1}
	if soaking() {
		// All vCPUs on one CPU, the queues' workers on any: QEMU's nested paging lets no
		// guest with two CPUs live that long (docs/soak.md, "A fault of the emulation").
		m.CPU.Pinning = slices.Repeat([][]int{{0}}, fioCPUs)
	}
	m.Disks[0].Queues = fioCPUs
	m.Disks = append(m.Disks, config.Disk{ID: "fio", File: "fio", Format: "raw", ReadOnly: true})
	g.start()
	g.ask("mkdir /fio && mount -t ext4 -o ro /dev/vdb /fio")
	if n := g.ask("ls /sys/block/vda/mq | wc -l"); n != strconv.Itoa(fioCPUs) {
		t.Fatalf("the guest uses %s queues", n)
	}
	_, err := fmt.Fprintf(g.console, "%s; echo \"E\"ND $?\n", fioCommand(pauses))
	g.must(err)
	for n := range pauses {
		g.disturb(n)
	}
	g.must(g.client.SetDiskLimits(t.Context(), "disk0", limit.Limits{}))
	out := g.expect("END ", fioTime)
	if status := strings.TrimSpace(g.expect("\n", askTime)); status != "0" || strings.Count(out, "err= 0") != fioCPUs {
		t.Errorf("fio ends with %s:\n%s", status, out)
	}
	if s := g.ask("dmesg | grep -c 'I/O error' || true"); s != "0" {
		t.Errorf("the guest's kernel saw %s errors", s)
	}
	stats, err := g.client.Stats(t.Context())
	g.must(err)
	d := stats.Disks[0]
	t.Logf("%d pauses: %+v, %+v", pauses, d, *stats.Balloon)
	if b := stats.Balloon; b.Inflated < fioBalloon {
		t.Errorf("the balloon did not move: %+v", b)
	}
	if d.Errors != 0 || d.Throttled == 0 || d.WriteBytes < fioCPUs*fioSize || d.ReadBytes < fioCPUs*fioSize || d.Latency.Count < d.Reads+d.Writes {
		t.Errorf("%+v", d)
	}
	g.must(g.process.Kill())
	if _, err := os.Stat(g.disk); errors.Is(err, os.ErrNotExist) {
		t.Error(err)
	}
}

// disturb pauses the VM for the nth time, in the midst of its requests, changes what the
// disk may do and has the balloon move. fio does 123 requests for every pause.
func (g *guest) disturb(n int) {
	g.t.Helper()
	const step = 100
	ctx := g.t.Context()
	g.awaitRequests(step * uint64(n+1))
	g.must(g.client.Pause(ctx))
	g.must(g.client.SetDiskLimits(ctx, "disk0", fioLimits[n%len(fioLimits)]))
	before := g.requests()
	if after := g.requests(); after != before {
		g.t.Errorf("a paused VM did %d requests", after-before)
	}
	g.must(g.client.Resume(ctx))
	stats, err := g.client.Stats(ctx)
	g.must(err)
	if b := stats.Balloon; b.Actual == b.Target {
		g.must(g.client.SetBalloon(ctx, 2*fioMemory-fioBalloon-b.Actual))
	}
}

// fioCommand verifies what was written a few requests ago, so that reads and writes
// are mixed; it takes long enough for so many pauses.
func fioCommand(pauses int) string {
	return "/fio/lib/ld-linux-x86-64.so.2 --library-path /fio/lib /fio/bin/fio --name=v --filename=/dev/vda --thread --ioengine=libaio --direct=1" +
		fmt.Sprintf(" --numjobs=%d --cpus_allowed=0-%d --cpus_allowed_policy=split --size=%d --offset_increment=%d --loops=%d", fioCPUs, fioCPUs-1, fioSize, 2*fioSize, (pauses+9)/10) +
		" --rw=randwrite --bsrange=4k-32k --iodepth=8 --verify=crc32c --verify_backlog=16 --verify_fatal=1 --eta=never"
}

func (g *guest) requests() uint64 {
	g.t.Helper()
	stats, err := g.client.Stats(g.t.Context())
	g.must(err)
	return stats.Disks[0].Reads + stats.Disks[0].Writes
}

// awaitRequests returns once the disk has done n requests. It asks again and again:
// that the process answers while it is busy is part of the test.
func (g *guest) awaitRequests(n uint64) {
	g.t.Helper()
	last, since := uint64(0), time.Now()
	for {
		now := g.requests()
		if now >= n {
			return
		}
		if now != last {
			last, since = now, time.Now()
		}
		if time.Since(since) > askTime {
			stats, err := g.client.Stats(g.t.Context())
			g.t.Fatalf("the disk stays at %d of %d requests: %+v, %v", now, n, stats, err)
		}
	}
}
