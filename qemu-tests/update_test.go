package qemutests

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"os/exec"
	"path/filepath"
	"regexp"
	"strconv"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
	"quantavirt/image/media"
	"quantavirt/image/tools"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/disks"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
	"quantavirt/qemu-tests/lab"
)

// Ways to install the node of an update.
const (
	oneDisk  = true  // system and data on a disk
	twoDisks = false // the data on another
)

// machine is an installed node, and what its disk was before it was booted first.
type machine struct {
	*lab.Node
	firmware string
	oneDisk  bool
	first    string // version that is installed
	disk     string
	sum      string     // of what the guest of VM "kept" wrote to its disk
	writes   *recording // nil: none
	journal  *journal   // where none are
}

// installed boots a node from a disk of its own, with a data volume and a
// hardware watchdog.
func installed(t *testing.T, firmware string, oneDisk bool) *machine {
	t.Helper()
	m := &machine{firmware: firmware, oneDisk: oneDisk, disk: filepath.Join(t.TempDir(), "disk.img")}
	copyFile(t, medium(t, "virtual", media.DiskFile), m.disk)
	o := lab.Options{
		Name: "update-" + firmware, Memory: 2048, Firmware: firmware, IOMMU: lab.IOMMUNone,
		Medium: lab.Medium{File: m.disk, As: lab.MediumNVMe, Keep: true},
		// What resets the machine, a triple fault too, stands in qemu.log.
		Extra: []string{"-device", "i6300esb", "-msg", "timestamp=on", "-d", "cpu_reset,trace:monitor_protocol_event_emit"},
	}
	if firmware == lab.FirmwareUEFI {
		o.Cmdline = shellWord
	} else {
		addWord(t, m.disk, shellWord)
	}
	if oneDisk {
		addData(t, m.disk, 1<<30)
		m.writes = record(t, m.disk, firmware)
		o.Medium.Log = m.writes.log
	} else {
		o.DataDisk = 1024
	}
	m.Node = boot(t, o)
	return m
}

// shellWord has the first system run a shell on its console.
const shellWord = "quantavirt.rescue"

// addWord adds to the kernel command line that GRUB reads for the first slot.
func addWord(t *testing.T, disk, word string) {
	t.Helper()
	file, err := os.Open(imageFile(image.UKIFile))
	if err != nil {
		t.Fatal(err)
	}
	defer file.Close()
	info, err := file.Stat()
	if err != nil {
		t.Fatal(err)
	}
	built, err := ukifile.Open(file, info.Size())
	if err != nil {
		t.Fatal(err)
	}
	line, err := built.Text(ukifile.Cmdline)
	if err != nil {
		t.Fatal(err)
	}
	block, err := disklayout.GRUBCmdline(line + " " + word)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), slot.Cmdline)
	place(t, path, block)
	at := fmt.Sprintf("%s@@%d", disk, partition(t, disk, partESP).offset)
	if out, err := exec.CommandContext(t.Context(), "mcopy", "-o", "-i", at, path, "::/qv/00000001/"+slot.Cmdline).CombinedOutput(); err != nil {
		t.Fatalf("mcopy: %v: %s", err, out)
	}
}

// addData makes a disk larger by a data volume.
func addData(t *testing.T, disk string, size int64) {
	t.Helper()
	f, err := os.OpenFile(disk, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	info, err := f.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(info.Size() + size); err != nil {
		t.Fatal(err)
	}
	if out, err := exec.CommandContext(t.Context(), "sgdisk", "-e", "-n", "3:0:0", "-c", "3:"+disks.LabelData, disk).CombinedOutput(); err != nil {
		t.Fatalf("sgdisk: %v: %s", err, out)
	}
	p := partition(t, disk, partData)
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	mkfs := root.Command("mkfs.ext4", "-q", "-F", "-L", disks.LabelData, "-E", fmt.Sprintf("offset=%d", p.offset), disk, fmt.Sprint(p.size>>10)+"k")
	if out, err := mkfs.CombinedOutput(); err != nil {
		t.Fatalf("mkfs.ext4: %v: %s", err, out)
	}
}

// Numbers of the partitions.
const (
	partESP  = 2
	partData = 3
)

// extent is where something lies on a disk, in bytes.
type extent struct{ offset, size int64 }

var sectorsOf = regexp.MustCompile(`(?s)First sector: (\d+) .*Last sector: (\d+) `)

// partition is where the one with a number lies.
func partition(t *testing.T, disk string, number int) extent {
	t.Helper()
	out, err := exec.CommandContext(t.Context(), "sgdisk", "-i", fmt.Sprint(number), disk).CombinedOutput()
	m := sectorsOf.FindSubmatch(out)
	if err != nil || m == nil {
		t.Fatalf("sgdisk: %v: %s", err, out)
	}
	first, _ := strconv.ParseInt(string(m[1]), 10, 64) // digits
	last, _ := strconv.ParseInt(string(m[2]), 10, 64)
	return extent{first * 512, (last - first + 1) * 512}
}

// window is how long all must be well, and within how much of the boot, in
// seconds.
type window struct{ good, limit int }

// short blesses a system almost at once.
var short = window{3, 240}

// sendUpdate uploads a bundle. It returns when it is verified, with the place on the
// console where that was.
func (m *machine) sendUpdate(t *testing.T, data []byte, w window) (mark int64) {
	t.Helper()
	begin := time.Now()
	mark = m.ConsoleMark()
	m.writes.mark(t, "receive")
	path := fmt.Sprintf("/api/v1/system/update?good=%d&limit=%d", w.good, w.limit)
	var task spec.Task
	if err := m.Call(t.Context(), http.MethodPost, path, io.Reader(bytes.NewReader(data)), &task); err != nil {
		t.Fatal(err)
	}
	m.writes.mark(t, "write")
	t.Logf("%.1f s: the bundle is received and verified", time.Since(begin).Seconds())
	m.goesDown(t, mark, task)
	m.writes.mark(t, "boot")
	t.Logf("%.1f s: written, and the node goes down", time.Since(begin).Seconds())
	return mark
}

// goesDown waits until an update has the node reboot.
func (m *machine) goesDown(t *testing.T, mark int64, task spec.Task) {
	t.Helper()
	ctx, cancel := context.WithCancelCause(t.Context())
	defer cancel(nil)
	go func() { // the node that goes down ends it without an answer
		var end spec.Task
		err := m.Call(ctx, http.MethodGet, "/api/v1/tasks/"+task.ID+"?wait=120", nil, &end)
		if err == nil && end.State != spec.TaskStateSucceeded {
			cancel(fmt.Errorf("the update ended: %+v", end))
		}
	}()
	limit, stop := context.WithTimeout(ctx, 2*time.Minute)
	defer stop()
	if _, err := m.WaitLineAfter(limit, mark, "quantavirt: reboot"); err != nil {
		t.Fatal(err, context.Cause(limit))
	}
}

// An installed node is updated, by both firmwares: the new system is tried and
// blessed, its VM runs again. Rolled back by hand, the first system runs again.
// Then it goes through the matrix of what can be wrong with an update: the first
// system runs again each time.
func TestUpdate(t *testing.T) {
	nodes := []struct {
		name, firmware string
		oneDisk        bool
		matrix         bool
		cuts           int // of power
	}{
		{"UEFI", lab.FirmwareUEFI, oneDisk, true, rounds(2, 30)},
		{"BIOS", lab.FirmwareBIOS, twoDisks, true, 0},
		{"BIOS, one disk", lab.FirmwareBIOS, oneDisk, false, 12},
	}
	for _, c := range nodes[:rounds(2, len(nodes))] {
		t.Run(c.name, func(t *testing.T) {
			m := installed(t, c.firmware, c.oneDisk)
			if c.matrix && (c.firmware == lab.FirmwareUEFI || soaking()) {
				m.fillPartition(t)
			}
			m.updateAndBack(t)
			if c.matrix && (c.firmware == lab.FirmwareBIOS || soaking()) {
				m.refuseBundles(t)
			}
			for _, f := range failing() {
				if c.matrix && (f.in[c.firmware] || soaking()) && !(f.joint && soaking()) {
					t.Run(f.name, func(t *testing.T) { m.fails(t, f) })
				}
			}
			if c.cuts == 0 {
				return
			}
			if err := m.Down(); err != nil {
				t.Fatal(err)
			}
			t.Run("power cuts", func(t *testing.T) { m.cutPower(t, c.cuts) })
		})
	}
}

// updateAndBack updates a node under a VM, and rolls it back.
func (m *machine) updateAndBack(t *testing.T) {
	t.Helper()
	l := slotsOf(t, m.Node)
	if len(l.Items) != 1 || !l.Items[0].Running || !l.Items[0].Next || l.Items[0].State != spec.SlotStateGood {
		t.Fatalf("slots of a new disk: %+v", l)
	}
	m.first = l.Items[0].Version
	m.keep(t)
	bundle := bundleOf(t, "9.1", 2, "quantavirt.hostname=updated")
	if m.writes != nil {
		m.recordedUpdate(t, bundle)
	} else {
		t.Log(timedUpdate(t, m.Node, m.journal, "9.1", bundle, short.good))
	}
	m.runs(t, "9.1", "RUNNING")
	m.writes.mark(t, "end")
	mark := m.ConsoleMark()
	if err := m.Call(t.Context(), http.MethodPost, "/api/v1/system/rollback", nil, nil); err != nil {
		t.Fatal(err)
	}
	again(t, m.Node, mark)
	m.runs(t, m.first, "RUNNING")
}

// recordedUpdate updates a node whose writes are recorded.
func (m *machine) recordedUpdate(t *testing.T, bundle []byte) {
	t.Helper()
	begin := time.Now()
	mark := m.sendUpdate(t, bundle, short)
	again(t, m.Node, mark)
	m.writes.mark(t, "bless")
	slotState(t, m.Node, "9.1", spec.SlotStateGood)
	t.Logf("%.1f s: blessed", time.Since(begin).Seconds())
}

// keep makes VM "kept", runs it, and has it write to its disk; where no writes are
// recorded it also keeps a journal.
func (m *machine) keep(t *testing.T) {
	t.Helper()
	if err := m.Call(t.Context(), http.MethodPost, "/api/v1/disks", map[string]any{"name": "kept", "size": "4M"}, nil); err != nil {
		t.Fatal(err)
	}
	var console *lab.Console
	if m.writes == nil {
		m.journal = startJournal(t, m.Node, "kept", "kept")
		console = m.journal.console
	} else {
		defineVM(t, m.Node, "kept", func(c map[string]any) { c["storage"] = []any{map[string]any{"disk": "kept"}} })
		act(t, m.Node, "kept", "start")
		console = attach(t, m.Node, "kept")
		ready(t, console)
	}
	m.sum = ask(t, console, "write vda 2 kept")
}

// runs wants a blessed system to run, and its VM to be in a state.
func (m *machine) runs(t *testing.T, version, vm string) {
	t.Helper()
	if s := slotState(t, m.Node, version, spec.SlotStateGood); !s.Running || !s.Next {
		t.Errorf("the slot that should run: %+v", s)
	}
	waitState(t, m.Node, "kept", vm, 60*time.Second)
}
