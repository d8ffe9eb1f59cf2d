package qemutests

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
	"quantavirt/internal/hosttool"
	"quantavirt/qemu-tests/lab"
)

// TestUpdates updates an installed node many times in a row under a guest that
// keeps a journal. Each update is blessed, no record that was acknowledged is
// lost, and nothing grows from update to update. TestUpdate has the first of them.
func TestUpdates(t *testing.T) {
	count := rounds(0, 20)
	if count == 0 {
		t.Skip("only under make soak")
	}
	const settledAfter = 3 // from then on there are two slots, and all caches are there
	n, disk := installedNode(t)
	j := startJournal(t, n, "kept")
	var times []updateTimes
	var early, late footprint
	for i := range count {
		version := fmt.Sprintf("9.%d", i+1)
		bundle := bundleOf(t, version, uint64(i+1), "quantavirt.hostname=update"+strconv.Itoa(i+1))
		times = append(times, timedUpdate(t, n, j, version, bundle, 3))
		checkSlots(t, n, version, uint64(i+1))
		if late = footprintOf(t, n, disk); i+1 == settledAfter {
			early = late
		}
		t.Logf("update %d: %s; %s", i+1, times[i], late)
	}
	(&machine{Node: n}).refuses(t, bundleOf(t, "8.0", uint64(count-1), ""), "QV_ERR_VERSION")
	t.Logf("%d updates, journal of %d records:\n%s", count, j.records, table(times))
	t.Logf("after %d updates: %s; after %d: %s", settledAfter, early, count, late)
	late.grownSince(t, early)
}

// installedNode is a node that installed itself on a blank disk.
func installedNode(t *testing.T) (n *lab.Node, disk string) {
	t.Helper()
	disk = blankDisk(t, 4096)
	o := lab.Options{Name: "updates", Memory: 1536, IOMMU: lab.IOMMUNone, Extra: targetArgs(lab.MediumVirtio, disk)}
	n = boot(t, o)
	out, stderr, exit := cli(t, n, "system", "install", "--disk", "serial:TARGET", "--file", imageFile(image.UKIFile), "--yes")
	if exit != 0 {
		t.Fatalf("exit %d: %s%s", exit, out, stderr)
	}
	if err := n.Down(); err != nil {
		t.Fatal(err)
	}
	return boot(t, lab.Options{
		Name: "updates", Memory: 2048, Firmware: lab.FirmwareUEFI, IOMMU: lab.IOMMUNone,
		Medium: lab.Medium{File: disk, As: lab.MediumVirtio, Keep: true},
	}), disk
}

// journal is a VM whose guest appends to a journal on its disk as long as it runs.
type journal struct {
	n       *lab.Node
	vm      string
	console *lab.Console
	records int // that the guest has acknowledged
}

const journalDisk = "journal"

// startJournal makes and starts a VM; its disks come before the journal's.
func startJournal(t *testing.T, n *lab.Node, name string, disks ...string) *journal {
	t.Helper()
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/disks", map[string]any{"name": journalDisk, "size": "32M"}, nil); err != nil {
		t.Fatal(err)
	}
	defineVM(t, n, name, func(c map[string]any) {
		var storage []any
		for _, disk := range append(disks, journalDisk) {
			storage = append(storage, map[string]any{"disk": disk})
		}
		c["storage"] = storage
		c["boot"].(map[string]any)["cmdline"] = "console=hvc0 quiet panic=-1 journal=vd" + string(rune('a'+len(disks)))
	})
	act(t, n, name, "start")
	j := &journal{n: n, vm: name, console: attach(t, n, name)}
	ready(t, j.console)
	return j
}

// follow notes what the guest acknowledges, until it is gone.
func (j *journal) follow(t *testing.T) {
	t.Helper()
	for begin := j.records; ; {
		ctx, cancel := context.WithTimeout(t.Context(), 2*time.Second)
		answer, err := j.console.Run(ctx, "journal")
		cancel()
		if err != nil {
			if j.records <= begin {
				t.Errorf("the guest wrote nothing while the update came in: %v", err)
			}
			return
		}
		j.records = number(t, answer, "records")
	}
}

// check wants every record that was acknowledged, and returns the times of the
// last before the last start of the guest, and of the first after it, by the
// guest's clock.
func (j *journal) check(t *testing.T, starts int) (before, after time.Time) {
	t.Helper()
	answer := ask(t, j.console, "check")
	if got := number(t, answer, "records"); got < j.records {
		t.Errorf("the journal has %d records, %d were acknowledged before", got, j.records)
	}
	if got := number(t, answer, "starts"); got != starts {
		t.Errorf("the journal knows %d starts of the guest, there were %d", got, starts)
	}
	j.records = number(t, answer, "records")
	return time.Unix(0, int64(number(t, answer, "before"))), time.Unix(0, int64(number(t, answer, "after")))
}

func number(t *testing.T, answer, name string) int {
	t.Helper()
	v, err := strconv.Atoi(field(answer, name))
	if err != nil {
		t.Fatalf("%s of %q: %v", name, answer, err)
	}
	return v
}

// updateTimes is what an update took, by the clock of this machine: one phase
// after the other until the API is back, then the VM's start and the blessing side
// by side, and the sums. The VM is down from the last record that its guest wrote to
// the first that it writes again.
type updateTimes []phaseTime

type phaseTime struct {
	name string
	took time.Duration
}

// timedUpdate updates a node under a journal and waits until the new system is
// blessed, for which it has to be well for good seconds.
func timedUpdate(t *testing.T, n *lab.Node, j *journal, version string, data []byte, good int) updateTimes {
	t.Helper()
	before := starts(t, n, j.vm)
	_, oldClock := clockOf(t, n)
	lastAnswer := watchAPI(n)
	sent := sendUnder(t, n, j, data, good)
	info, newClock := clockOf(t, n)
	var task spec.Task
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/tasks/"+sent.task, nil, &task); err != nil {
		t.Fatal(err)
	}
	blessed := newClock.here(blessedAt(t, n, version))
	j.console = attach(t, n, j.vm)
	readyAgain(t, j.console, before)
	last, first := j.check(t, before+1)

	marks := timeline{{"", sent.begin}}
	for i, p := range task.Progress.Phases[1:] { // a phase ends where the next begins
		marks.end(task.Progress.Phases[i].Name, oldClock.here(p.StartedAt))
	}
	kernel := newClock.here(info.Time).Add(-time.Duration(info.UptimeSeconds * float64(time.Second)))
	marks.end("shut down", sent.reset)
	marks.end("firmware", kernel)
	marks.end("kernel", kernel.Add(time.Duration(info.BootSteps[0].TookMS)*time.Millisecond))
	marks.end("API", sent.ready)
	return append(marks.phases(),
		phaseTime{"API to VM", newClock.here(first).Sub(sent.ready)},
		phaseTime{"API to blessed", blessed.Sub(sent.ready)},
		phaseTime{"upload to blessed", blessed.Sub(sent.begin)},
		phaseTime{"API down", sent.ready.Sub(<-lastAnswer)},
		phaseTime{"VM down", newClock.here(first).Sub(oldClock.here(last))})
}

// sent is an update on its way, seen from outside: when the upload began, when
// the machine was reset, and when the API was ready again.
type sent struct {
	task                string
	begin, reset, ready time.Time
}

// sendUnder uploads a bundle and waits until the API is back, with an eye on the
// journal.
func sendUnder(t *testing.T, n *lab.Node, j *journal, data []byte, good int) sent {
	t.Helper()
	events, err := n.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	mark := n.ConsoleMark()
	s := sent{begin: time.Now()}
	var task spec.Task
	path := fmt.Sprintf("/api/v1/system/update?good=%d&limit=240", good)
	if err := n.Call(t.Context(), http.MethodPost, path, io.Reader(bytes.NewReader(data)), &task); err != nil {
		t.Fatal(err)
	}
	s.task = task.ID
	j.follow(t)
	again(t, n, mark)
	s.ready = time.Now()
	resets := events.Times("RESET")
	if len(resets) == 0 {
		t.Fatal("the machine was not reset")
	}
	s.reset = resets[0] // SeaBIOS resets a machine that it finds running once more
	return s
}

// timeline is when each phase ended; the first entry is the beginning.
type timeline []mark

type mark struct {
	name string
	at   time.Time
}

func (l *timeline) end(name string, at time.Time) {
	*l = append(*l, mark{name, at})
}

func (l timeline) phases() updateTimes {
	var list updateTimes
	for i, m := range l[1:] {
		list = append(list, phaseTime{m.name, m.at.Sub(l[i].at)})
	}
	return list
}

// nodeClock is how far a node's clock is ahead of that of this machine.
type nodeClock time.Duration

// here is when a time of the node was, by the clock of this machine.
func (c nodeClock) here(t time.Time) time.Time { return t.Add(-time.Duration(c)) }

// clockOf compares the clocks: the node's runs anew from whole seconds of the
// hardware clock at each boot.
func clockOf(t *testing.T, n *lab.Node) (info spec.SystemInfo, ahead nodeClock) {
	t.Helper()
	begin := time.Now()
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	return info, nodeClock(info.Time.Sub(begin.Add(time.Since(begin) / 2)))
}

// watchAPI asks the API until it does not answer any more. The channel then has
// the time of the last answer.
func watchAPI(n *lab.Node) <-chan time.Time {
	last := make(chan time.Time, 1)
	client := n.Client()
	go func() {
		defer client.CloseIdleConnections()
		tick := time.NewTicker(50 * time.Millisecond)
		defer tick.Stop()
		answered := time.Now()
		for range tick.C {
			if !healthy(client, n.URL) {
				last <- answered
				return
			}
			answered = time.Now()
		}
	}()
	return last
}

func healthy(client *http.Client, base string) bool {
	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, base+"/healthz", nil)
	if err != nil {
		return false
	}
	resp, err := client.Do(req)
	if err != nil {
		return false
	}
	defer resp.Body.Close()
	_, err = io.Copy(io.Discard, resp.Body)
	return err == nil && resp.StatusCode == http.StatusOK
}

// blessedAt waits until a version is blessed, and returns when that was, by the
// node's log.
func blessedAt(t *testing.T, n *lab.Node, version string) time.Time {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(250 * time.Millisecond)
	defer tick.Stop()
	path := "/api/v1/logs?limit=1&grep=" + url.QueryEscape(`the update is blessed .*version=`+regexp.QuoteMeta(version)+`$`)
	for {
		var l spec.LogList
		if err := n.Call(ctx, http.MethodGet, path, nil, &l); err != nil {
			t.Fatal(err)
		}
		if len(l.Items) > 0 {
			return l.Items[0].Time
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("version %s is not blessed: %+v", version, slotsOf(t, n))
		}
	}
}

// checkSlots wants a version to run, blessed, and nothing beside it but the slot
// before.
func checkSlots(t *testing.T, n *lab.Node, version string, counter uint64) {
	t.Helper()
	l := slotsOf(t, n)
	if len(l.Items) != 2 || l.Counter != int64(counter) || len(l.Failures) != 0 {
		t.Errorf("after update %s: %+v", version, l)
		return
	}
	now, before := l.Items[0], l.Items[1]
	if now.Version != version || now.State != spec.SlotStateGood || !now.Running || !now.Next || !now.Whole || now.Counter != int64(counter) {
		t.Errorf("the slot of update %s: %+v", version, now)
	}
	if before.State != spec.SlotStateGood || before.Running || before.Next || !before.Whole {
		t.Errorf("the slot before update %s: %+v", version, before)
	}
}

// footprint is what a node takes, in bytes.
type footprint struct {
	memory  int64 // in use, with the VM
	data    int64 // of the data volume, without the journal
	espFree int64
}

// footprintOf looks at a node that booted from the file disk.
func footprintOf(t *testing.T, n *lab.Node, disk string) footprint {
	t.Helper()
	info, _ := clockOf(t, n)
	var d spec.Disk
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/disks/"+journalDisk, nil, &d); err != nil {
		t.Fatal(err)
	}
	return footprint{
		memory:  info.Memory.TotalBytes - info.Memory.AvailableBytes,
		data:    info.DataVolume.SizeBytes - info.DataVolume.FreeBytes - d.AllocatedBytes,
		espFree: espFree(t, disk),
	}
}

// espFree asks mtools for the room in the EFI system partition, which the node
// has mounted only while it looks at it.
func espFree(t *testing.T, disk string) int64 {
	t.Helper()
	out := hosttool.Run(t, "mdir", "-i", disk+"@@2M", "::")
	found := regexp.MustCompile(`([0-9 ]+) bytes free`).FindStringSubmatch(out)
	if found == nil {
		t.Fatalf("mdir: %s", out)
	}
	free, err := strconv.ParseInt(strings.ReplaceAll(found[1], " ", ""), 10, 64)
	if err != nil {
		t.Fatal(err)
	}
	return free
}

// grownSince wants nothing to have grown since an earlier update. Memory in use
// differs from boot to boot; the data volume may keep the records of 500 tasks.
func (f footprint) grownSince(t *testing.T, early footprint) {
	t.Helper()
	const memory, data, esp = 24 << 20, 4 << 20, 64 << 10
	if f.memory > early.memory+memory || f.data > early.data+data || f.espFree < early.espFree-esp {
		t.Errorf("the node has grown: %s, was %s", f, early)
	}
}

// String implements fmt.Stringer.
func (f footprint) String() string {
	const mib = 1 << 20
	return fmt.Sprintf("memory in use %.1f MiB, data volume %.2f MiB without the journal, ESP %.2f MiB free",
		float64(f.memory)/mib, float64(f.data)/mib, float64(f.espFree)/mib)
}

// String implements fmt.Stringer.
func (u updateTimes) String() string {
	var parts []string
	for _, p := range u {
		parts = append(parts, fmt.Sprintf("%s %.2f", p.name, p.took.Seconds()))
	}
	return strings.Join(parts, ", ") + " s"
}

// table has a line for each phase, with median and maximum over the updates in
// seconds.
func table(all []updateTimes) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%-18s %8s %8s\n", "phase", "median", "maximum")
	for i, p := range all[0] {
		var took []time.Duration
		for _, u := range all {
			took = append(took, u[i].took)
		}
		slices.Sort(took)
		fmt.Fprintf(&b, "%-18s %8.2f %8.2f\n", p.name, took[len(took)/2].Seconds(), took[len(took)-1].Seconds())
	}
	return b.String()
}
