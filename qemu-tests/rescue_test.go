package qemutests

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
	"quantavirt/image/grub"
	"quantavirt/image/tools"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/slot"
	"quantavirt/qemu-tests/lab"
)

// rescueLimit is how long after the daemon's last good breath the listener may
// take: five starts and the pauses between them, and a boot before that.
const rescueLimit = 3 * time.Minute

// waitRescue waits until the console shows the rescue banner for the n-th time.
func waitRescue(t *testing.T, n *lab.Node, mark int64) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), rescueLimit)
	defer cancel()
	begin := time.Now()
	line, err := n.WaitLineAfter(ctx, mark, "quantavirt: rescue ")
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(line, "ca="+n.CA) {
		t.Errorf("the listener has another authority than the daemon, %s: %s", n.CA, line)
	}
	t.Logf("in rescue mode after %.1f s", time.Since(begin).Seconds())
}

func systemState(t *testing.T, n *lab.Node) spec.SystemInfo {
	t.Helper()
	var info spec.SystemInfo
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	return info
}

// twoSlots makes a disk with the system that is built in two slots, which differ in
// their command lines.
func twoSlots(t *testing.T) string {
	t.Helper()
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	code, err := grub.BIOS(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	loader, err := os.ReadFile(imageFile(image.LoaderFile))
	if err != nil {
		t.Fatal(err)
	}
	var slots []disklayout.Slot
	for i, words := range []string{"quantavirt.hostname=first", "quantavirt.hostname=second"} {
		data, err := os.ReadFile(signedBy(t, "", image.Cmdline+" "+words).slot)
		if err != nil {
			t.Fatal(err)
		}
		slots = append(slots, disklayout.Slot{
			Info: slot.Info{Sequence: uint32(i + 1), Version: fmt.Sprint(i + 1), Build: "virtual", State: slot.StateGood},
			UKI:  bytes.NewReader(data), Size: int64(len(data)),
		})
	}
	files, err := disklayout.BootFiles(loader, 2, slots...)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "disk.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const esp = 160 << 20
	d := disklayout.Disk{Size: disklayout.MinSize(esp), SectorSize: 512, ESP: esp, IDs: disklayout.RandomIDs()}
	if err := f.Truncate(d.Size); err != nil {
		t.Fatal(err)
	}
	if _, err := d.Format(f, code, disklayout.ESP{Serial: 1, Time: time.Now(), Files: files}); err != nil {
		t.Fatal(err)
	}
	return path
}

// A daemon that cannot open its state gives way to the listener, over a rollback to
// the slot before too; VMs run on, and the daemon comes back when the state is repaired.
func TestRescue(t *testing.T) {
	n := boot(t, lab.Options{Name: "rescue", Memory: 2048, DataDisk: 1024, Cmdline: "quantavirt.rescue",
		Firmware: lab.FirmwareUEFI, Medium: lab.Medium{File: twoSlots(t), As: lab.MediumVirtio, Keep: true}})
	defineVM(t, n, "kept", nil)
	act(t, n, "kept", "start")
	ready(t, attach(t, n, "kept"))
	pid := getVM(t, n, "kept").PID

	mark := n.ConsoleMark()
	shell(t, n, "echo garbage > /var/lib/quantavirt/state.db; kill -9 "+strconv.Itoa(info(t, n).Daemon.PID))
	waitRescue(t, n, mark)
	s := systemState(t, n)
	if s.Mode != spec.SystemInfoModeRescue || s.Rescue == nil || !strings.Contains(s.Rescue.Reason, "open state file") || s.Vms.Running != 1 {
		t.Errorf("mode %s, %+v, VMs %+v", s.Mode, s.Rescue, s.Vms)
	}
	if out := shell(t, n, "cat /proc/"+strconv.Itoa(pid)+"/comm"); strings.TrimSpace(out) == "" {
		t.Error("the VM does not run any more")
	}
	stdout, _, exit := cli(t, n, "system", "info")
	if exit != 0 || !strings.HasPrefix(stdout, "RESCUE MODE: the daemon has ended 5 times") {
		t.Errorf("exit %d: %s", exit, stdout)
	}
	_, stderr, exit := cli(t, n, "vm", "list")
	if exit != 1 || !strings.HasPrefix(stderr, "Error: QV_ERR_AGAIN ") || !strings.Contains(stderr, "restart-daemon") {
		t.Errorf("exit %d: %s", exit, stderr)
	}
	stdout, stderr, exit = cli(t, n, "log", "tail", "--source", "boot", "--level", "error", "--grep", "state file")
	if exit != 0 || !strings.Contains(stdout, "[ERROR] daemon: ") {
		t.Errorf("exit %d: %s%s", exit, stdout, stderr)
	}
	bundle := filepath.Join(t.TempDir(), "diag.tar.gz")
	stdout, stderr, exit = cli(t, n, "system", "support-bundle", "--output", bundle)
	if exit != 0 || strings.Count(stdout, " done") != 5 || strings.Count(stdout, " incomplete") != 2 || strings.Count(stderr, "not collected: QV_ERR_AGAIN ") != 2 {
		t.Errorf("exit %d: %s%s", exit, stdout, stderr)
	}

	t.Run("rollback", func(t *testing.T) {
		if s.Hostname != "second" {
			t.Errorf("the slot that runs is that of %s", s.Hostname)
		}
		mark := n.ConsoleMark()
		if out, stderr, exit := cli(t, n, "system", "rollback"); exit != 0 {
			t.Fatalf("exit %d: %s%s", exit, out, stderr)
		}
		waitRescue(t, n, mark)
		for _, one := range slotsOf(t, n).Items {
			first := one.Slot == slot.Digits(1)
			if one.Running != first || one.Next != first || first != (one.State == spec.SlotStateGood) {
				t.Errorf("after the rollback: %+v", one)
			}
		}
		if again := systemState(t, n); again.BootID == s.BootID || again.Mode != spec.SystemInfoModeRescue || again.Vms.Running != 0 || again.Hostname != "first" {
			t.Errorf("boot %s after %s, mode %s, VMs %+v", again.BootID, s.BootID, again.Mode, again.Vms)
		}
	})
	t.Run("back", func(t *testing.T) {
		shell(t, n, "rm /var/lib/quantavirt/state.db")
		mark := n.ConsoleMark()
		if _, stderr, exit := cli(t, n, "system", "restart-daemon"); exit != 0 {
			t.Fatalf("exit %d: %s", exit, stderr)
		}
		if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
			t.Fatal(err)
		}
		if s := systemState(t, n); s.Mode != spec.SystemInfoModeNormal || s.Rescue == nil || s.Rescue.Active {
			t.Errorf("mode %s, %+v", s.Mode, s.Rescue)
		}
	})
}

func shell(t *testing.T, n *lab.Node, command string) string {
	t.Helper()
	out, err := n.Shell(t.Context(), command)
	if err != nil {
		t.Fatal(err)
	}
	return out
}

// A change of the uplink that nobody confirms is gone after its time, and one that
// is confirmed stays.
func TestUplinkChange(t *testing.T) {
	n := boot(t, lab.Options{Name: "uplink", Memory: 1024, DataDisk: 256, IOMMU: lab.IOMMUNone})
	uplink := func() spec.Uplink {
		t.Helper()
		var u spec.Uplink
		if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/uplink", nil, &u); err != nil {
			t.Fatal(err)
		}
		return u
	}
	before := uplink()
	if before.Config.Mode != spec.UplinkConfigModeDHCP || before.Status.State != spec.UplinkInfoStateUp {
		t.Fatalf("%+v", before)
	}
	// QEMU forwards its port to 10.0.2.15 and to no other address.
	_, stderr, exit := cli(t, n, "system", "uplink", "set", "10.0.2.99/24", "--gateway", "10.0.2.2", "--confirm-seconds", "15")
	if exit == 0 || !strings.HasPrefix(stderr, "Error: QV_ERR_TIMEOUT ") {
		t.Errorf("exit %d: %s", exit, stderr)
	}
	back := awaitAPI(t, n)
	if u := uplink(); u.Pending != nil || u.Config.Mode != spec.UplinkConfigModeDHCP || u.Status.Addresses[0] != before.Status.Addresses[0] {
		t.Errorf("after it was not confirmed: %+v", u)
	}
	t.Logf("reachable again %.1f s after the command gave up", back.Seconds())

	stdout, stderr, exit := cli(t, n, "system", "uplink", "set", "10.0.2.15/24", "--gateway", "10.0.2.2", "--dns", "10.0.2.3")
	if exit != 0 || !strings.HasPrefix(stdout, "The change is confirmed") {
		t.Fatalf("exit %d: %s%s", exit, stdout, stderr)
	}
	if u := uplink(); u.Pending != nil || u.Source != spec.UplinkSourceAPI || u.Status.Mode != spec.UplinkInfoModeStatic {
		t.Errorf("after it was confirmed: %+v", u)
	}
	reboot(t, n)
	if u := uplink(); u.Source != spec.UplinkSourceAPI || u.Status.Mode != spec.UplinkInfoModeStatic || u.Status.Addresses[0] != "10.0.2.15/24" {
		t.Errorf("after a reboot: %+v", u)
	}
}

// awaitAPI waits until the API answers.
func awaitAPI(t *testing.T, n *lab.Node) time.Duration {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	begin := time.Now()
	for {
		try, done := context.WithTimeout(ctx, 3*time.Second)
		a, err := n.Do(try, http.MethodGet, "/healthz", nil)
		done()
		if err == nil && a.Status == http.StatusOK {
			return time.Since(begin)
		}
		if ctx.Err() != nil {
			t.Fatalf("the API does not answer any more: %v", err)
		}
	}
}
