package qemutests

import (
	"context"
	"encoding/binary"
	"encoding/json"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/qemu-tests/lab"
	"quantavirt/qemu-tests/writelog"
)

// recording is a disk as it was, all writes to it since, and what a node that is
// booted from any state of it must have. All of it lies in a folder.
type recording struct {
	dir, disk, log string

	Firmware string
	First    string // version before the update
	Token    string
	Sum      string           // of the disk of VM "kept"
	Marks    map[string]int64 // length of the log at the beginning of a phase
}

// recordFile is the recording's own description.
const recordFile = "recording.json"

// record begins with a copy of a disk.
func record(t *testing.T, disk, firmware string) *recording {
	t.Helper()
	r := recordingAt(filepath.Join(lab.Dir(shared.root), "writes-"+firmware))
	r.Firmware, r.Marks = firmware, make(map[string]int64)
	if err := os.RemoveAll(r.dir); err != nil {
		t.Fatal(err)
	}
	if err := os.MkdirAll(r.dir, 0o755); err != nil {
		t.Fatal(err)
	}
	copyFile(t, disk, r.disk)
	return r
}

func recordingAt(dir string) *recording {
	return &recording{dir: dir, disk: filepath.Join(dir, "disk.img"), log: filepath.Join(dir, "writes.log")}
}

// mark notes the beginning of a phase, the first time.
func (r *recording) mark(t *testing.T, phase string) {
	t.Helper()
	if r == nil || r.Marks[phase] != 0 {
		return
	}
	info, err := os.Stat(r.log)
	if err != nil {
		t.Fatal(err)
	}
	r.Marks[phase] = info.Size()
}

// copyFile copies what a file holds; holes stay holes where the file system can.
func copyFile(t *testing.T, from, to string) {
	t.Helper()
	in, err := os.Open(from)
	if err != nil {
		t.Fatal(err)
	}
	defer in.Close()
	info, err := in.Stat()
	if err != nil {
		t.Fatal(err)
	}
	if err := copySparse(to, io.NewSectionReader(in, 0, info.Size())); err != nil {
		t.Fatal(err)
	}
}

func copySparse(to string, in *io.SectionReader) error {
	out, err := os.Create(to)
	if err != nil {
		return err
	}
	defer out.Close()
	if err := out.Truncate(in.Size()); err != nil {
		return err
	}
	buf, zero := make([]byte, 1<<20), make([]byte, 1<<20)
	for at := int64(0); at < in.Size(); at += int64(len(buf)) {
		n, err := in.ReadAt(buf, at)
		if err != nil && err != io.EOF {
			return err
		}
		if string(buf[:n]) == string(zero[:n]) {
			continue
		}
		if _, err := out.WriteAt(buf[:n], at); err != nil {
			return err
		}
	}
	return nil
}

// cutPower cuts the power at n points of the node's first update, from the upload to
// the blessing: after each a node comes up from what was on the disk.
func (m *machine) cutPower(t *testing.T, n int) {
	m.writes.First, m.writes.Token, m.writes.Sum = m.first, m.Token, m.sum
	data, err := json.MarshalIndent(m.writes, "", "  ")
	if err != nil {
		t.Fatal(err)
	}
	place(t, filepath.Join(m.writes.dir, recordFile), data)
	m.writes.check(t, func(l *writelog.Log) []int { return m.writes.points(t, l, n) })
	if !t.Failed() {
		if err := os.RemoveAll(m.writes.dir); err != nil {
			t.Fatal(err)
		}
	}
}

// TestPowerCutAgain repeats power cuts that went wrong: QV_CUT=FOLDER:POINT,POINT…
func TestPowerCutAgain(t *testing.T) {
	dir, list, ok := strings.Cut(os.Getenv("QV_CUT"), ":")
	if !ok {
		t.Skip("QV_CUT=FOLDER:POINT names a power cut to repeat, as a test that failed prints it")
	}
	var points []int
	for text := range strings.SplitSeq(list, ",") {
		at, err := strconv.Atoi(text)
		if err != nil {
			t.Fatal(err)
		}
		points = append(points, at)
	}
	slices.Sort(points)
	r := recordingAt(dir)
	data, err := os.ReadFile(filepath.Join(dir, recordFile))
	if err != nil {
		t.Fatal(err)
	}
	if err := json.Unmarshal(data, r); err != nil {
		t.Fatal(err)
	}
	r.check(t, func(*writelog.Log) []int { return points })
}

// points are those that matter: two thirds of them after small writes to files and
// folders of the EFI system partition, by which slots get their names and states.
func (r *recording) points(t *testing.T, l *writelog.Log, n int) []int {
	t.Helper()
	esp := partition(t, r.disk, partESP)
	files := esp.offset + fatEnd(t, r.disk, esp.offset)
	names := func(e writelog.Entry) bool {
		return e.Flags&writelog.Discard == 0 && e.Size > 0 && e.Size <= 8<<10 && e.Offset >= files && e.Offset < esp.offset+esp.size
	}
	any := func(e writelog.Entry) bool { return e.Size > 0 }
	border := func(phase string) int { return l.Before(r.Marks[phase]) }
	var cuts []int
	phases := []string{"receive", "write", "boot", "bless", "end"}
	for i, phase := range phases[:len(phases)-1] {
		from, to := border(phase), border(phases[i+1])
		small := len(l.Cuts(from, to, 1<<30, names))
		t.Logf("%-8s writes %d to %d, %d of them small ones to files of the EFI system partition", phase, from, to, small)
		switch {
		case n <= 3 && (phase == "write" || phase == "bless"):
			cuts = append(cuts, l.Cuts(from, to, 1, names)...)
		case n > 3 && phase == "receive":
			cuts = append(cuts, l.Cuts(from, to, n/10, any)...)
		case n > 3:
			// What the small writes leave over, others get.
			some := l.Cuts(from, to, n*2/10, names)
			cuts = append(append(cuts, some...), l.Cuts(from, to, n*3/10-len(some), any)...)
		}
	}
	slices.Sort(cuts)
	return slices.Compact(cuts)
}

// fatEnd is where on a FAT32 volume its allocation tables end ("Microsoft FAT
// Specification", section 3.1).
func fatEnd(t *testing.T, disk string, at int64) int64 {
	t.Helper()
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	b := make([]byte, 512)
	if _, err := f.ReadAt(b, at); err != nil {
		t.Fatal(err)
	}
	le := binary.LittleEndian
	sector, reserved, tables, length := le.Uint16(b[11:]), le.Uint16(b[14:]), b[16], le.Uint32(b[36:])
	return int64(sector) * (int64(reserved) + int64(tables)*int64(length))
}

// copy is another disk as it was.
func (r *recording) copy(t *testing.T) *os.File {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk.img")
	copyFile(t, r.disk, path)
	disk, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = disk.Close() })
	return disk
}

// check boots a node from the disk as it was at points.
func (r *recording) check(t *testing.T, points func(*writelog.Log) []int) {
	t.Helper()
	log, err := os.Open(r.log)
	if err != nil {
		t.Fatal(err)
	}
	defer log.Close()
	info, err := log.Stat()
	if err != nil {
		t.Fatal(err)
	}
	disk := r.copy(t)
	size, err := disk.Seek(0, io.SeekEnd)
	if err != nil {
		t.Fatal(err)
	}
	l, err := writelog.Read(log, info.Size(), size)
	if err != nil {
		t.Fatal(err)
	}
	r.look(t, l, func() *os.File { return r.copy(t) })
	bundle := bundleOf(t, "9.5", 2, "")
	at := 0
	cuts := points(l)
	for i, point := range cuts {
		if err := l.Apply(disk, at, point); err != nil {
			t.Fatal(err)
		}
		at = point
		ok := t.Run(fmt.Sprint("after ", point), func(t *testing.T) { r.boots(t, disk.Name(), bundle, soaking() || i == len(cuts)-1) })
		if !ok {
			t.Logf("once more: QV_CUT=%s:%d go test -count=1 -v -run TestPowerCutAgain ./qemu-tests", r.dir, point)
		}
	}
}

// boots boots a node from a disk on which the power was cut: it is up within two
// boots, and has all that it had. With run the VM is run, too.
func (r *recording) boots(t *testing.T, disk string, bundle []byte, run bool) {
	begin := time.Now()
	o := lab.Options{Name: "cut-" + r.Firmware, Memory: 2048, Firmware: r.Firmware, IOMMU: lab.IOMMUNone, NoWait: true,
		Medium: lab.Medium{File: disk, As: lab.MediumNVMe}}
	n := boot(t, o)
	defer func() {
		if err := n.Down(); err != nil {
			t.Error(err)
		}
	}()
	events, err := n.Events()
	if err != nil {
		t.Fatal(err)
	}
	defer events.Close()
	if err := n.WaitReady(t.Context()); err != nil {
		t.Fatal(err)
	}
	if r.Firmware == lab.FirmwareBIOS {
		n.Token = r.Token
	}
	m := &machine{Node: n, firmware: r.Firmware}
	boots := 1 + m.boots(events)
	up := time.Since(begin)
	slots := m.decided(t, r.First)
	if boots > 2 {
		t.Errorf("the API was back after %d boots", boots)
	}
	v := getVM(t, n, "kept")
	if run {
		// A node that starts it by itself says so.
		err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms/kept/start?wait=120", nil, nil)
		if v.State == string(spec.VMStateSTOPPED) && err != nil && !strings.Contains(err.Error(), "start is under way") {
			t.Fatal(err)
		}
		waitState(t, n, "kept", "RUNNING", time.Minute)
		if sum := patientAsk(t, attach(t, n, "kept"), "sum vda 2"); sum != r.Sum {
			t.Errorf("the VM's disk has %s, had %s", sum, r.Sum)
		}
	}
	if task := m.updateTask(t, "?no_reboot=true&wait=120", bundle); task.State != spec.TaskStateSucceeded {
		t.Errorf("no other update can be armed: %+v", task)
	}
	t.Logf("%d boots, %.1f s, all of it %.1f s: %s", boots, up.Seconds(), time.Since(begin).Seconds(), slots)
}

// patientAsk asks a guest that may not hear yet: its console has kept what it said
// before the power was cut, so that "ready" does not tell.
func patientAsk(t *testing.T, console *lab.Console, command string) (answer string) {
	t.Helper()
	for end := time.Now().Add(time.Minute); ; {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Second)
		answer, err := console.Run(ctx, command)
		cancel()
		if err == nil {
			return answer
		}
		if time.Now().After(end) {
			t.Fatal(err)
		}
	}
}

// decided waits until the node runs a blessed system that it boots next, and wants
// every other slot to be good, to say why it failed, or to wait for its try.
func (m *machine) decided(t *testing.T, first string) (shown string) {
	t.Helper()
	end := time.Now().Add(90 * time.Second)
	for {
		l, err := trySlots(t.Context(), m.Node)
		shown = ""
		ok := false
		for _, s := range l.Items {
			shown += fmt.Sprintf("%s %s %s %q; ", s.Slot, s.Version, s.State, s.Reason)
			switch {
			case s.Running:
				ok = s.State == spec.SlotStateGood && s.Next && (s.Version == first || s.Version == "9.1")
			case s.State == spec.SlotStateFailed && s.Reason == "":
				t.Errorf("a slot does not say why: %+v", s)
			}
		}
		if ok && err == nil {
			return shown
		}
		if time.Now().After(end) {
			t.Fatalf("nothing is decided: %+v, %v", l, err)
		}
		<-time.After(500 * time.Millisecond)
	}
}
