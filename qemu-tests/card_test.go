package qemutests

import (
	"context"
	"fmt"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// TestCardAMD is TestNested's part of the card behind the other IOMMU, on the kernel that
// has a driver for it.
func TestCardAMD(t *testing.T) {
	if !soaking() {
		t.Skip("only under make soak: behind Intel's IOMMU it is part of TestNested")
	}
	archive, err := guest.CardTest(t.Context(), shared.root, filepath.Join(shared.root, "build", "guest", "card"))
	if err != nil {
		t.Fatal(err)
	}
	n := boot(t, lab.Options{Name: "card-amd", Build: "hardware", IOMMU: lab.IOMMUAMD, Card: true, Archive: archive, Cmdline: "quantavirt.rescue"})
	loadCard(t, n)
}

// loadCard runs the driver's own load on the card inside the appliance. The daemon dies,
// so that the card comes free, and comes back without it.
func loadCard(t *testing.T, n *lab.Node) {
	settled(t, n)
	s := info(t, n)
	if len(s.Cards) != 1 || !s.Cards[0].Bound || s.CryptoProvider != "quac100" {
		t.Fatalf("cards %+v, provider %s", s.Cards, s.CryptoProvider)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 20*time.Minute)
	defer cancel()
	mark := n.ConsoleMark()
	out, err := n.Shell(ctx, fmt.Sprintf("cd /nested; (QUANTAVIRT_CARD=%s QUANTAVIRT_CARD_OPERATIONS=%d ./quac100.test -test.v -test.run TestLoadVFIO) & kill -9 %d; wait",
		s.Cards[0].Address, rounds(3000, 100_000), s.Daemon.PID))
	if err != nil {
		t.Fatal(err)
	}
	t.Log(out)
	if !strings.Contains(out, "\nPASS") || !strings.Contains(out, "--- PASS: TestLoadVFIO ") {
		t.Error("the load did not pass")
	}
	if err := n.WaitReadyAfter(ctx, mark); err != nil {
		t.Fatal(err)
	}
	settled(t, n)
	if s := info(t, n); s.CryptoProvider != "software" {
		t.Errorf("with the card in other hands, cryptography is served by %q", s.CryptoProvider)
	}
}
