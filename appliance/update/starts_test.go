package update

import (
	"io"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// A system that the firmware would not start is refused, by --check too. Forced, it is
// tried, does not start, and the reason is known; a kernel cannot be forced past the
// firmware.
func TestFirmwareThatRefuses(t *testing.T) {
	n := newNode(t, UEFI, true)
	refuse := func() {
		n.svc.Starts = func(r io.ReaderAt, size int64) error {
			data := make([]byte, size)
			if _, err := r.ReadAt(data, 0); err != nil && err != io.EOF {
				t.Error(err)
			}
			if sum(data) == sum(system("2.0")) {
				return qverr.New(qverr.Perm, "it is not signed")
			}
			return nil
		}
	}
	refuse()
	n.settle()
	data := pack(t, "2.0", nil)
	n.systems[sum(system("2.0"))] = "2.0"
	forced := quick
	forced.Force = true
	for name, o := range map[string]Options{"update": quick, "check": {Check: true}, "kexec": {Kexec: true, Force: true, Good: quick.Good, Limit: quick.Limit}} {
		if err := n.update(data, o); qverr.CodeOf(err) != qverr.Perm || !strings.Contains(err.Error(), "not signed") {
			t.Errorf("%s: %v", name, err)
		}
		if s := n.slots(); len(s.Items) != 1 {
			t.Errorf("%s: %+v", name, s.Items)
		}
	}
	if err := n.update(data, forced); err != nil {
		t.Fatal(err)
	}
	n.boot() // the loader counts the try, and the firmware refuses
	n.boot()
	refuse()
	n.settle()
	if s := n.find("2.0"); n.version != "1.0" || s.State != spec.SlotStateFailed || !strings.Contains(s.Reason, "Secure Boot is on") || !strings.Contains(s.Reason, "not signed") {
		t.Errorf("%s runs; %+v", n.version, s)
	}
	n.must("3.0", quick)
	n.boot()
	refuse()
	n.settle()
	if s := n.find("3.0"); n.version != "3.0" || s.State != spec.SlotStateGood {
		t.Errorf("%s runs; %+v", n.version, s)
	}
}
