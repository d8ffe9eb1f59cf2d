package qemutests

import (
	"net/http"
	"testing"
	"time"

	"quantavirt/qemu-tests/lab"
)

// reboot asks the node to reboot and waits until it is ready again.
func reboot(t *testing.T, n *lab.Node) {
	t.Helper()
	before := bootID(t, n)
	mark := n.ConsoleMark()
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/system/reboot", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	if bootID(t, n) == before {
		t.Fatal("the node did not reboot")
	}
}

func bootID(t *testing.T, n *lab.Node) string {
	t.Helper()
	var s struct {
		BootID string `json:"boot_id"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &s); err != nil {
		t.Fatal(err)
	}
	return s.BootID
}

// With a data disk a reboot keeps definitions, tokens, leases and images, and
// starts what has autostart. A backup brings it to another machine.
func TestRebootKeepsState(t *testing.T) {
	network := map[string]any{"networks": []any{map[string]any{"name": "lab", "subnet": "10.9.0.1/24"}}}
	n := boot(t, lab.Options{Name: "keep", Memory: 2048, DataDisk: 1024, Extra: configurationArgs(t, network)})
	defineVM(t, n, "auto", func(c map[string]any) { c["autostart"] = map[string]any{"enabled": true} })
	act(t, n, "auto", "start")
	console := attach(t, n, "auto")
	ready(t, console)
	address := field(ask(t, console, "dhcp"), "address")
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/tokens", map[string]any{"description": "kept"}, nil); err != nil {
		t.Fatal(err)
	}
	ca := n.CA

	for round := range rounds(1, 10) {
		reboot(t, n)
		if n.CA != ca {
			t.Errorf("the node's authority changed from %s to %s", ca, n.CA)
		}
		waitState(t, n, "auto", "RUNNING", 60*time.Second)
		console = attach(t, n, "auto")
		readyAgain(t, console, round+1)
		if again := field(ask(t, console, "dhcp"), "address"); again != address {
			t.Errorf("address %s after the reboot, had %s", again, address)
		}
	}
	var tokens struct {
		Items []struct {
			Description string `json:"description"`
		} `json:"items"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/tokens", nil, &tokens); err != nil {
		t.Fatal(err)
	}
	found := false
	for _, token := range tokens.Items {
		found = found || token.Description == "kept"
	}
	if !found {
		t.Errorf("tokens after the reboot: %+v", tokens)
	}
	if s := info(t, n); !s.DataVolume.Persistent {
		t.Errorf("data volume: %+v", s.DataVolume)
	}
	if !soaking() {
		return
	}
	t.Run("backup", func(t *testing.T) { restoredElsewhere(t, n, "auto") })
}

// Without a data disk the node starts clean and says why.
func TestRebootWithoutDisk(t *testing.T) {
	n := boot(t, lab.Options{Name: "ram", Memory: 1024, IOMMU: lab.IOMMUNone})
	if s := info(t, n); s.DataVolume.Persistent || s.DataVolume.Message == "" {
		t.Errorf("data volume: %+v", s.DataVolume)
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/disks", map[string]any{"name": "gone", "size": "1M"}, nil); err != nil {
		t.Fatal(err)
	}
	ca := n.CA
	reboot(t, n)
	if n.CA == ca {
		t.Error("the authority outlived a node that has no disk")
	}
	a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/disks/gone", nil)
	if err != nil || a.Status != http.StatusNotFound {
		t.Errorf("the disk of the last boot: %d %v", a.Status, err)
	}
}
