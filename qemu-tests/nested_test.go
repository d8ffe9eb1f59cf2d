package qemutests

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/image/tools"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// TestNested runs the VMM's own tests where there is KVM, and the card's driver where
// there is an IOMMU: inside the appliance.
func TestNested(t *testing.T) {
	tool, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	archive, err := guest.Nested(t.Context(), tool, shared.root, filepath.Join(shared.root, "build", "guest", "nested"))
	if err != nil {
		t.Fatal(err)
	}
	cache, err := tools.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	disks, err := guest.NewBootDisks(t.Context(), tool, cache, filepath.Join(shared.root, "build", "guest", "bios"), t.Output())
	if err != nil {
		t.Fatal(err)
	}
	n := boot(t, lab.Options{Name: "nested", Memory: 3072, Card: true, Archive: archive, Cmdline: "quantavirt.rescue", Extra: vmBootArgs(t, disks)})
	// Modules go on loading after the API is ready.
	const await = "until [ -e /dev/kvm ] && [ -e /dev/vhost-vsock ] && [ -e /dev/vhost-net ]; do sleep 1; done"
	for _, c := range []struct {
		name, pkg, run, proof string
		count                 int
	}{
		{"machine", "machine", ".", "TestGuestReset", rounds(1, 5)},
		{"jail", "jail", "TestEnter|TestForbidden", "TestForbiddenAndAllowed", 1},
		{"vmm", "vmm", "TestGuest|TestKilled$|TestTerminated|TestQuitWhilePaused|TestBadKernel|TestFirmware", "TestFirmwareDebian", rounds(1, 5)},
		{"block", "block", "TestQueue", "TestQueueContent", 1},
		// These count their rounds themselves.
		{"many", "vmm", "TestFio|TestBadDrivers|TestCrashReport|TestCycles|TestMany|TestKilledAnywhere", "TestKilledAnywhere", 1},
	} {
		t.Run(c.name, func(t *testing.T) {
			ctx, cancel := context.WithTimeout(t.Context(), 10*time.Minute)
			defer cancel()
			out, err := n.Shell(ctx, fmt.Sprintf("%s; cd /nested; PATH=/nested/bin:/bbin TMPDIR=/tmp QUANTAVIRT_NESTED=/nested QV_SOAK='%s' ./%s.test -test.v -test.run '%s' -test.count=%d",
				await, os.Getenv("QV_SOAK"), c.pkg, c.run, c.count))
			if err != nil {
				t.Fatal(err)
			}
			t.Log(out)
			lines := strings.Split(out, "\n")
			if last := lines[len(lines)-1]; last != "PASS" || !strings.Contains(out, "--- PASS: "+c.proof+" ") {
				t.Errorf("the tests %q end with %q", c.name, last)
			}
		})
	}
	t.Run("placed", func(t *testing.T) { placed(t, n, filepath.Join(filepath.Dir(archive), "testkernel")) })
	t.Run("boot", func(t *testing.T) { bootGuests(t, n, tool) })
	t.Run("passthrough", func(t *testing.T) { passThrough(t, n, tool) })
	t.Run("card", func(t *testing.T) { loadCard(t, n) })
}
