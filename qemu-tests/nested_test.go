package qemutests

import (
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"golang.org/x/sync/errgroup"

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
	cache, err := tools.CacheDir()
	if err != nil {
		t.Fatal(err)
	}
	// The one waits for a network, the other for a compiler.
	var archive string
	var disks guest.BootDisks
	group, ctx := errgroup.WithContext(t.Context())
	group.Go(func() (err error) {
		archive, err = guest.Nested(ctx, tool, shared.root, filepath.Join(shared.root, "build", "guest", "nested"))
		return err
	})
	group.Go(func() (err error) {
		disks, err = guest.NewBootDisks(ctx, tool, cache, filepath.Join(shared.root, "build", "guest", "bios"), false, t.Output())
		return err
	})
	if err := group.Wait(); err != nil {
		t.Fatal(err)
	}
	node := lab.Options{Name: "nested", Memory: 3072, Card: true, Archive: archive, Cmdline: "quantavirt.rescue", Extra: vmBootArgs(t, disks)}
	n, whole := boot(t, node), t
	// Modules go on loading after the API is ready.
	const await = "until [ -e /dev/kvm ] && [ -e /dev/vhost-vsock ] && [ -e /dev/vhost-net ]; do sleep 1; done"
	type part struct {
		name, pkg, run, proof string
		count                 int
	}
	parts := []part{
		{"machine", "machine", ".", "TestGuestReset", rounds(1, 5)},
		{"jail", "jail", "TestEnter|TestForbidden", "TestForbiddenAndAllowed", 1},
		{"vmm", "vmm", "TestGuest|TestKilled$|TestTerminated|TestQuitWhilePaused|TestBadKernel|TestFirmware(Debian|ISO|NoDisk)", "TestFirmwareDebian", rounds(1, 5)},
		{"block", "block", "TestQueue", "TestQueueContent", 1},
		// These count their rounds themselves.
		{"many", "vmm", "TestFio|TestBadDrivers|TestCrashReport|TestCycles|TestMany|TestKilledAnywhere", "TestKilledAnywhere", 1},
	}
	for _, c := range parts {
		t.Run(c.name, func(t *testing.T) {
			command := fmt.Sprintf("%s; cd /nested; PATH=/nested/bin:/bbin TMPDIR=/tmp QUANTAVIRT_NESTED=/nested QV_SOAK='%s' ./%s.test -test.v -test.timeout %s -test.run '%s' -test.count=%d",
				await, os.Getenv("QV_SOAK"), c.pkg, insideTime(), c.run, c.count)
			err := inside(t, n, command, c.proof)
			if err != nil && lab.Emulated() && faulted(err) {
				t.Logf("%v\nA fault of the emulation: once more, on a node of its own.", err)
				_ = n.Down()
				n = boot(whole, node)
				err = inside(t, n, command, c.proof)
			}
			if err != nil {
				t.Error(err)
			}
		})
	}
	t.Run("placed", func(t *testing.T) { placed(t, n, filepath.Join(filepath.Dir(archive), "testkernel")) })
	t.Run("boot", func(t *testing.T) { bootGuests(t, n, tool) })
	t.Run("passthrough", func(t *testing.T) { passThrough(t, n, tool) })
	t.Run("card", func(t *testing.T) { loadCard(t, n) })
}

// insideTime bounds one test program in the node.
func insideTime() time.Duration { return time.Duration(rounds(10, 60)) * time.Minute }

// inside runs a test program in the node and logs what it prints. It has passed when it
// says so and the test proof was among those that ran.
func inside(t *testing.T, n *lab.Node, command, proof string) error {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), insideTime())
	defer cancel()
	out, err := n.Shell(ctx, command)
	if err != nil {
		return err
	}
	if !strings.HasSuffix("\n"+out, "\nPASS") || !strings.Contains(out, "--- PASS: "+proof+" ") {
		return fmt.Errorf("%s\nThe tests inside do not pass", out)
	}
	t.Log(out)
	return nil
}

// emulationFaults are what a guest, or the node's kernel, ends with when its processor
// reads a wrong page table or takes the host's state for the guest's: a triple fault, a
// stack that somebody wrote over, a vCPU that gets nowhere.
var emulationFaults = []string{"triple fault", "triple-fault", "corrupted stack end", "a vCPU spins"}

// faulted tells whether a test inside may have failed by a fault of the emulation (QEMU
// 11.1; docs/soak.md says how they were seen). That is no proof against us where QEMU
// emulates the node's processor; a fault of ours comes again.
func faulted(err error) bool {
	return slices.ContainsFunc(emulationFaults, func(words string) bool { return strings.Contains(err.Error(), words) })
}
