package qemutests

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
	"quantavirt/image/media"
	"quantavirt/image/tools"
	"quantavirt/image/uki"
	"quantavirt/internal/ukifile"
	"quantavirt/qemu-tests/lab"
)

// installed boots a node from a disk of its own, with a data volume.
func installed(t *testing.T, firmware, as string) *lab.Node {
	t.Helper()
	from, err := os.Open(medium(t, "virtual", media.DiskFile))
	if err != nil {
		t.Fatal(err)
	}
	defer from.Close()
	disk := filepath.Join(t.TempDir(), "disk.img")
	to, err := os.Create(disk)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := io.Copy(to, from); err != nil {
		t.Fatal(err)
	}
	if err := to.Close(); err != nil {
		t.Fatal(err)
	}
	return boot(t, lab.Options{
		Name: "update-" + firmware, Memory: 2048, DataDisk: 1024, Firmware: firmware, IOMMU: lab.IOMMUNone,
		Medium: lab.Medium{File: disk, As: as, Keep: true},
	})
}

// bundleOf makes a bundle of the image that is built, with another version and
// words more on its kernel command line.
func bundleOf(t *testing.T, version string, counter uint64, words string) []byte {
	t.Helper()
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	stub, err := os.ReadFile(root.Path("usr", "lib", "systemd", "boot", "efi", "linuxx64.efi.stub"))
	if err != nil {
		t.Fatal(err)
	}
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
	text := func(section string) string {
		r, err := built.Section(section)
		if err != nil {
			t.Fatal(err)
		}
		data, err := io.ReadAll(r)
		if err != nil {
			t.Fatal(err)
		}
		return string(data)
	}
	made, err := uki.Make(uki.Parts{
		Stub: stub, Kernel: []byte(text(ukifile.Linux)), Initrd: []byte(text(ukifile.Initrd)),
		Cmdline: strings.TrimSpace(text(ukifile.Cmdline) + " " + words), OSRelease: text(ukifile.OSRelease), Uname: text(ukifile.Uname),
	})
	if err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	path := filepath.Join(dir, "virtual.efi")
	if err := os.WriteFile(path, made, 0o600); err != nil {
		t.Fatal(err)
	}
	out := filepath.Join(dir, "x.qvu")
	_, err = image.Bundle(image.BundleOptions{
		Out: out, Keys: filepath.Join(shared.root, "build", "keys"), UKIs: map[string]string{"virtual": path},
		Version: version, Counter: counter, Created: time.Now(),
	})
	if err != nil {
		t.Fatal(err)
	}
	data, err := os.ReadFile(out)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// sendUpdate uploads a bundle and waits until the node is up again after its
// reboot. The system has good seconds to show that all is well.
func sendUpdate(t *testing.T, n *lab.Node, data []byte, good int) {
	t.Helper()
	begin := time.Now()
	mark := n.ConsoleMark()
	path := fmt.Sprintf("/api/v1/system/update?good=%d&limit=240", good)
	if err := n.Call(t.Context(), http.MethodPost, path, io.Reader(bytes.NewReader(data)), nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: the bundle is received and verified", time.Since(begin).Seconds())
	if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: the API is back", time.Since(begin).Seconds())
}

func slotsOf(t *testing.T, n *lab.Node) spec.SlotList {
	t.Helper()
	var l spec.SlotList
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/slots", nil, &l); err != nil {
		t.Fatal(err)
	}
	return l
}

// slotState waits until the slot with a version has a state.
func slotState(t *testing.T, n *lab.Node, version string, state spec.SlotState) spec.Slot {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 2*time.Minute)
	defer cancel()
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for {
		l := slotsOf(t, n)
		for _, s := range l.Items {
			if s.Version == version && s.State == state {
				return s
			}
		}
		select {
		case <-tick.C:
		case <-ctx.Done():
			t.Fatalf("no slot with version %s is %s: %+v", version, state, l)
		}
	}
}

// An installed node is updated, by both firmwares: the new system is tried and
// blessed, its VM runs again. Rolled back by hand, the first system runs again. A
// system whose kernel panics falls back, says why, and is refused from then on.
func TestUpdate(t *testing.T) {
	t.Run("UEFI", func(t *testing.T) {
		n := installed(t, lab.FirmwareUEFI, lab.MediumVirtio)
		first := updateAndBack(t, n)
		// Its kernel panics when all is loaded: the firmware's variables keep that.
		sendUpdate(t, n, bundleOf(t, "9.2", 2, "quantavirt.rescue"), 200)
		slotState(t, n, "9.2", spec.SlotStateTry)
		mark := n.ConsoleMark()
		crash(t, n)
		again(t, n, mark)
		failedUpdate(t, n, first, "9.2", "Kernel panic - not syncing: sysrq triggered crash")
	})
	t.Run("BIOS", func(t *testing.T) {
		n := installed(t, lab.FirmwareBIOS, lab.MediumNVMe)
		first := updateAndBack(t, n)
		sendUpdate(t, n, bundleOf(t, "9.2", 2, "rdinit=/nonexistent"), 3)
		failedUpdate(t, n, first, "9.2", "")
	})
}

// updateAndBack updates a node under a VM that keeps a journal, and rolls it back. It returns the
// version that runs before and after.
func updateAndBack(t *testing.T, n *lab.Node) (first string) {
	t.Helper()
	l := slotsOf(t, n)
	if len(l.Items) != 1 || !l.Items[0].Running || !l.Items[0].Next || l.Items[0].State != spec.SlotStateGood {
		t.Fatalf("slots of a new disk: %+v", l)
	}
	first = l.Items[0].Version
	j := startJournal(t, n, "kept")
	t.Log(timedUpdate(t, n, j, "9.1", bundleOf(t, "9.1", 2, "quantavirt.hostname=updated"), 3))
	runs(t, n, "9.1")
	refusedUpdate(t, n, bundleOf(t, "9.0", 1, ""), "QV_ERR_VERSION")
	mark := n.ConsoleMark()
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/system/rollback", nil, nil); err != nil {
		t.Fatal(err)
	}
	again(t, n, mark)
	runs(t, n, first)
	return first
}

// runs wants a blessed system and its VM to run.
func runs(t *testing.T, n *lab.Node, version string) {
	t.Helper()
	if s := slotState(t, n, version, spec.SlotStateGood); !s.Running || !s.Next {
		t.Errorf("the slot that should run: %+v", s)
	}
	waitState(t, n, "kept", "RUNNING", 60*time.Second)
}

// again waits until the node is ready once more since a mark.
func again(t *testing.T, n *lab.Node, mark int64) {
	t.Helper()
	if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
}

// crash has the node's kernel panic.
func crash(t *testing.T, n *lab.Node) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), 10*time.Second)
	defer cancel()
	if out, err := n.Shell(ctx, "echo c > /proc/sysrq-trigger"); err == nil {
		t.Fatalf("the node survived: %s", out)
	}
}

// failedUpdate wants a version to have failed, and the one before to run.
func failedUpdate(t *testing.T, n *lab.Node, first, version, lastWords string) {
	t.Helper()
	s := slotState(t, n, version, spec.SlotStateFailed)
	if s.Running || s.Next || s.Reason == "" || !strings.Contains(s.Panic, lastWords) {
		t.Errorf("the system that panicked: %+v", s)
	}
	runs(t, n, first)
	refusedUpdate(t, n, bundleOf(t, version, 2, "quantavirt.debug"), "QV_ERR_STATE")
}

func refusedUpdate(t *testing.T, n *lab.Node, data []byte, name string) {
	t.Helper()
	a, err := n.Do(t.Context(), http.MethodPost, "/api/v1/system/update", io.Reader(bytes.NewReader(data)))
	if err != nil {
		t.Fatal(err)
	}
	if !strings.Contains(string(a.Body), fmt.Sprintf("%q", name)) {
		t.Errorf("status %d, %s; want %s", a.Status, a.Body, name)
	}
}
