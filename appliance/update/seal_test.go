package update

import (
	"errors"
	"io"
	"testing"

	"quantavirt/internal/qverr"
)

// The data volume is sealed for a system before that is tried; if it cannot be,
// the system is not tried.
func TestSealedBeforeTrial(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		before := n.slots().Items
		var sealed string
		failure := qverr.New(qverr.Perm, "the TPM keeps the key")
		n.svc.Reseal = func(uki io.ReaderAt, size int64, name string) error {
			data := make([]byte, size)
			if _, err := uki.ReadAt(data, 0); err != nil {
				t.Error(err)
			}
			sealed = sum(data) + " " + name
			return failure
		}
		n.systems[sum(system("2.0"))] = "2.0"
		if err := n.update(pack(t, "2.0", nil), quick); !errors.Is(err, qverr.Perm) {
			t.Errorf("the volume could not be sealed: %v", err)
		}
		if after := n.slots().Items; len(after) != len(before) || n.did("reboot") {
			t.Errorf("slots after it: %+v, PID 1 was asked %v", after, n.asked)
		}
		n.svc.Reseal = func(io.ReaderAt, int64, string) error { return nil }
		n.must("2.0", quick)
		s := n.find("2.0")
		if !n.did("reboot") || sealed != s.Sha256+" slot "+s.Slot {
			t.Errorf("sealed for %q, armed is %s in slot %s", sealed, s.Sha256, s.Slot)
		}
	})
}
