package qemutests

import (
	"io"
	"net/http"
	"testing"

	"quantavirt/image/tools"
	"quantavirt/qemu-tests/lab"
)

// step tells whether the boot had a step.
func (s systemInfo) step(name string) bool {
	for _, b := range s.BootSteps {
		if b.Name == name {
			return true
		}
	}
	return false
}

// The data volume is checked after a power cut, not after a boot that ended in
// order, and one that is beyond repair is not mounted.
func TestDataVolumeIsChecked(t *testing.T) {
	o := lab.Options{Name: "datacheck", Memory: 1024, IOMMU: lab.IOMMUNone, DataDisk: 256}
	n := boot(t, o)
	if s := info(t, n); s.step("data-check") || !s.DataVolume.Persistent {
		t.Errorf("a new volume: checked %v, %+v", s.step("data-check"), s.DataVolume)
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/disks", map[string]any{"name": "kept", "size": "1M"}, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.Down(); err != nil { // the power is cut
		t.Fatal(err)
	}

	o.KeepData = true
	n = boot(t, o)
	if s := info(t, n); !s.step("data-check") || !s.DataVolume.Persistent || s.DataVolume.Problem != nil {
		t.Errorf("after a power cut: checked %v, %+v", s.step("data-check"), s.DataVolume)
	}
	reboot(t, n)
	if s := info(t, n); s.step("data-check") || !s.DataVolume.Persistent {
		t.Errorf("after a reboot in order: checked %v, %+v", s.step("data-check"), s.DataVolume)
	}
	image := n.DataDisk
	if err := n.Down(); err != nil {
		t.Fatal(err)
	}

	damage(t, image)
	n = boot(t, o)
	s := info(t, n)
	if s.DataVolume.Persistent || s.DataVolume.Problem == nil || s.DataVolume.Problem.Name != "QV_STR_ERR_IO" || s.DataVolume.Problem.Recovery == "" {
		t.Errorf("a volume beyond repair: %+v", s.DataVolume)
	}
}

// damage makes a file system that e2fsck does not repair without asking: it is
// marked as broken, and its root folder is no folder any more.
func damage(t *testing.T, image string) {
	t.Helper()
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	for _, request := range []string{"clri <2>", "ssv state 2"} {
		if out, err := root.Command("debugfs", "-w", "-R", request, image).CombinedOutput(); err != nil {
			t.Fatalf("debugfs %s: %v: %s", request, err, out)
		}
	}
}
