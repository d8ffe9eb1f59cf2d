package vmm_test

import (
	"context"
	"fmt"
	"math/rand/v2"
	"os"
	"path/filepath"
	"strconv"
	"sync"
	"testing"
	"time"

	"quantavirt/hv/vmm"
	"quantavirt/internal/flat"
)

// hugePages are reserved on the node: one VM of flatMemory and a few more.
const hugePages = flatMemory>>21 + 4

// warmUp starts and ends one VM, for what is made once.
func warmUp(t *testing.T) {
	t.Helper()
	rig(t)
	const pool = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	if err := os.WriteFile(pool, []byte(strconv.Itoa(hugePages)), 0); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = os.WriteFile(pool, []byte("0"), 0) })
	if n := count(t).hugepages; n != hugePages {
		t.Fatalf("the node has %d huge pages of %d", n, hugePages)
	}
	warm, err := vmm.KeepWarm()
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { warm.Close() })
	cycle(t, 1)
}

// onHugePages gives every fourth VM huge pages.
func (v *flatVM) onHugePages(i int) {
	if i%4 == 3 {
		v.spec.Machine.MemoryFrom.HugePage = "2M"
	}
}

// cycle starts a VM, waits for its guest and ends it, every other one by its own will.
func cycle(t *testing.T, i int) {
	t.Helper()
	kernel := (&flat.Kernel{}).Print("ready\n")
	if i%2 == 0 {
		kernel.PowerOff()
	}
	v := newFlat(t, fmt.Sprintf("cycle%d", i%3), kernel.ELF(), 1)
	v.onHugePages(i)
	ctx, cancel := context.WithTimeout(t.Context(), askTime)
	defer cancel()
	if err := v.spawn(ctx); err != nil {
		t.Fatal(err)
	}
	want := vmm.ReasonGuestOff
	if i%2 != 0 {
		v.expect("ready")
		if err := v.process.Client().Quit(ctx); err != nil {
			t.Fatal(err)
		}
		want = vmm.ReasonQuit
	}
	if r := v.wait(); r.Reason != want {
		t.Errorf("%+v", r)
	}
	v.gone()
}

// TestCycles starts and stops VMs over and over: nothing is left of them.
func TestCycles(t *testing.T) {
	warmUp(t)
	before := count(t)
	began := time.Now()
	n := rounds(10, 200)
	for i := range n {
		cycle(t, i)
	}
	t.Logf("%d cycles in %v: %+v", n, time.Since(began).Round(time.Millisecond), before)
	expectCount(t, before)
}

// TestMany runs many VMs at once, each of which answers.
func TestMany(t *testing.T) {
	warmUp(t)
	before := count(t)
	n := rounds(4, 20)
	vms := make([]*flatVM, n)
	for i := range vms {
		vms[i] = newFlat(t, fmt.Sprintf("many%d", i), flat.Echo(), i+1)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	var wg sync.WaitGroup
	for i, v := range vms {
		wg.Go(func() {
			if err := v.spawn(ctx); err != nil {
				t.Errorf("VM %d: %v", i, err)
			}
		})
	}
	wg.Wait()
	if t.Failed() {
		t.FailNow()
	}
	during := before
	during.processes, during.memfds = before.processes+n, before.memfds+n
	during.taps, during.cgroups = before.taps+2*n, before.cgroups+n
	expectNode(t, during)
	for i, v := range vms {
		if err := v.echo(fmt.Sprintf("number %d", i)); err != nil {
			t.Errorf("VM %d does not answer: %v", i, err)
		}
	}
	for _, v := range vms {
		if err := v.process.Client().Quit(ctx); err != nil {
			t.Error(err)
		}
	}
	for _, v := range vms {
		v.wait()
		v.gone()
	}
	expectCount(t, before)
}

// TestKilledAnywhere kills VM processes at random moments, from the clone on: nothing
// is left of them, and who waits is told.
func TestKilledAnywhere(t *testing.T) {
	warmUp(t)
	before := count(t)
	start := spawnTime(t)
	seed := uint64(time.Now().UnixNano())
	t.Logf("seed %d, a start takes %v", seed, start)
	random := rand.New(rand.NewPCG(seed, 0))
	n, early := rounds(5, 50), 0
	for i := range n {
		if !killAfter(t, i, time.Duration(random.Int64N(int64(start*3/2)))) {
			early++
		}
	}
	t.Logf("%d of %d were killed before they ran", early, n)
	expectCount(t, before)
}

// spawnTime measures how long a start takes.
func spawnTime(t *testing.T) time.Duration {
	t.Helper()
	began := time.Now()
	v := startFlat(t, "model", flat.Echo(), 1)
	took := time.Since(began)
	_ = v.process.Kill()
	v.wait()
	return took
}

// killAfter starts a VM and kills its processes after a time. It tells whether the VM
// ran by then.
func killAfter(t *testing.T, i int, after time.Duration) (ran bool) {
	t.Helper()
	v := newFlat(t, fmt.Sprintf("victim%d", i), flat.Echo(), 1)
	v.onHugePages(i)
	ctx, cancel := context.WithTimeout(t.Context(), askTime)
	defer cancel()
	over, killed := make(chan struct{}), make(chan error, 1)
	go func() { killed <- killCgroup(v.spec.Cgroup, after, over) }()
	err := v.spawn(ctx)
	if v.process != nil {
		if r := v.wait(); r.Reason != vmm.ReasonDied || r.Signal == 0 {
			t.Errorf("%+v", r)
		}
	}
	close(over)
	if err := <-killed; err != nil {
		t.Error(err)
	}
	v.gone()
	return err == nil
}

// killCgroup kills what is in a cgroup after a time, or as soon as there is somebody,
// unless over is closed first.
func killCgroup(dir string, after time.Duration, over <-chan struct{}) error {
	wait := after
	for {
		select {
		case <-time.After(wait):
		case <-over:
			return nil
		}
		if procs, _ := os.ReadFile(filepath.Join(dir, "cgroup.procs")); len(procs) > 0 {
			return os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0)
		}
		wait = time.Millisecond
	}
}
