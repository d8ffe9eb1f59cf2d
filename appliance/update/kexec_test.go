package update

import (
	"errors"
	"maps"
	"os"
	"strings"
	"syscall"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func TestKexec(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		o := quick
		o.Kexec = true
		n.must("2.0", o)
		if !n.did("kexec") || n.did("reboot") || !strings.HasSuffix(n.loaded, "quantavirt.slot=00000002 quantavirt.esp=esp quantavirt.try") {
			t.Fatalf("PID 1 was asked %v; command line %q", n.asked, n.loaded)
		}
		n.start(2, "2.0") // the kernel starts the other
		n.settle()
		if n.find("2.0").State != spec.SlotStateGood {
			t.Errorf("%+v", n.find("2.0"))
		}
		o.Force = true
		n.must("3.0", o)
		n.boot() // that one hung: the loader takes the blessed one
		n.settle()
		if n.version != "2.0" || n.find("3.0").State != spec.SlotStateFailed {
			t.Errorf("%s runs, %+v", n.version, n.find("3.0"))
		}
	})
}

// A node without a disk of its own is updated directly, or not at all.
func TestWithoutSlots(t *testing.T) {
	n := newNode(t, UEFI, false)
	boot := n.bootOf()
	boot.Medium, boot.Slot, boot.ESPDevice = "pxe", "", ""
	n.svc.Start(t.Context(), boot)
	if l := n.slots(); l.Message == "" || l.Medium != "pxe" || len(l.Items) != 0 {
		t.Errorf("%+v", l)
	}
	if err := n.update(pack(t, "2.0", nil), quick); qverr.CodeOf(err) != qverr.Unsupported {
		t.Errorf("got %v", err)
	}
	if _, err := n.svc.RollBack(t.Context()); qverr.CodeOf(err) != qverr.Unsupported {
		t.Errorf("rollback: %v", err)
	}
	n.vms["web"] = spec.VMStateRUNNING
	o := quick
	o.Kexec = true
	operations := len(n.esp.log)
	if err := n.update(pack(t, "2.0", nil), o); err != nil || !n.did("kexec") || strings.Contains(n.loaded, "quantavirt.slot") {
		t.Errorf("%v, PID 1 was asked %v, command line %q", err, n.asked, n.loaded)
	}
	if len(n.esp.log) != operations || !strings.Contains(n.log.String(), "cold boot") {
		t.Errorf("written: %v; log %s", n.esp.log[operations:], n.log)
	}
	n.start(0, "2.0")
	boot.BootID = "next"
	n.svc.Start(t.Context(), boot)
	if n.vms["web"] != spec.VMStateRUNNING {
		t.Errorf("VMs: %v", n.vms)
	}
}

func TestNextCmdline(t *testing.T) {
	seq := uint32(3)
	got := nextCmdline("console=ttyS0 panic=10", "BOOT_IMAGE=/x initrd=y console=ttyS0 quantavirt.token-hash=sha256:a quantavirt.slot=00000002 quantavirt.esp=b quantavirt.try", &seq, "b")
	if want := "console=ttyS0 panic=10 quantavirt.token-hash=sha256:a quantavirt.slot=00000003 quantavirt.esp=b quantavirt.try"; got != want {
		t.Errorf("%q", got)
	}
	if got := nextCmdline("a", "b BOOTIF=01-02", nil, ""); got != "a b BOOTIF=01-02" {
		t.Errorf("%q", got)
	}
}

// A kernel that the running one refuses to start leaves nothing.
func TestKexecRefused(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		n.svc.LoadKernel = func(_, _ *os.File, _ string) error { return qverr.New(qverr.Perm, "not signed") }
		before := maps.Clone(n.esp.files)
		o := quick
		o.Kexec = true
		if err := n.update(pack(t, "2.0", nil), o); qverr.CodeOf(err) != qverr.Perm || n.did("kexec") {
			t.Errorf("%v, PID 1 was asked %v", err, n.asked)
		}
		d, err := readDisk(n.esp, n.firmware)
		if err != nil || d.boots() != 1 || len(d.sequences()) != 1 || len(n.esp.files) != len(before) {
			t.Errorf("slots %v, next %d, %v", d.sequences(), d.boots(), err)
		}
	})
}

func TestNotLoaded(t *testing.T) {
	for errno, want := range map[syscall.Errno]qverr.Code{
		syscall.EPERM: qverr.Perm, syscall.EKEYREJECTED: qverr.Perm, syscall.ENODATA: qverr.Perm, syscall.ENOMEM: qverr.NoMem,
	} {
		err := notLoaded(errno)
		if qverr.CodeOf(err) != want || !errors.Is(err, errno) || (qverr.From(err).Hint != "") != (want == qverr.Perm) {
			t.Errorf("%v: %v", errno, err)
		}
	}
}
