package qemutests

import (
	"encoding/json"
	"fmt"
	"net/http"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quantavirt/image/tools"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// pci is what the tests read of GET /system/pci.
type pci struct {
	Address    string   `json:"address"`
	Driver     string   `json:"driver"`
	Group      int      `json:"iommu_group"`
	VM         string   `json:"vm"`
	Uses       []string `json:"uses"`
	Assignable bool     `json:"assignable"`
	Problem    *problem `json:"problem"`
}

func functions(t *testing.T, n *lab.Node) map[string]pci {
	t.Helper()
	var list struct {
		Items []pci `json:"items"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/pci", nil, &list); err != nil {
		t.Fatal(err)
	}
	all := map[string]pci{}
	for _, f := range list.Items {
		all[f.Address] = f
	}
	return all
}

// passThrough gives the card to a VM and has the driver work there, while the node does
// without; then the VM ends and the node has the card back.
func passThrough(t *testing.T, n *lab.Node, root tools.Root) {
	settled(t, n)
	files, err := guest.Card(t.Context(), root, shared.root, filepath.Join(shared.root, "build", "guest", "card-guest"))
	if err != nil {
		t.Fatal(err)
	}
	began := time.Now()
	before := info(t, n)
	if len(before.Cards) != 1 || before.CryptoProvider != "quac100" {
		t.Fatalf("cards %+v, provider %s", before.Cards, before.CryptoProvider)
	}
	address := before.Cards[0].Address
	if f := functions(t, n)[address]; !f.Assignable || f.Driver != "vfio-pci" || f.Group < 0 {
		t.Errorf("the card before: %+v", f)
	}
	upload(t, n, "card-kernel", "kernel", files.Kernel)
	upload(t, n, "card-initrd", "initrd", files.Initrd)
	defineCardVM(t, n, "owner", map[string]any{"quac100": "passthrough"}, nil)
	defineCardVM(t, n, "other", nil, []any{map[string]any{"address": address}})
	act(t, n, "owner", "start")
	if s := info(t, n); s.CryptoProvider != "software" {
		t.Errorf("while a VM has the card, cryptography is served by %q", s.CryptoProvider)
	}
	if f := functions(t, n)[address]; f.VM != "owner" || f.Assignable {
		t.Errorf("the card meanwhile: %+v", f)
	}
	if out, _, _ := cli(t, n, "crypto", "quac100", "status"); !regexp.MustCompile(`Given to VM +owner`).MatchString(out) {
		t.Errorf("the card's status: %s", out)
	} else {
		t.Logf("meanwhile:\n%s", out)
	}
	if _, stderr, exit := cli(t, n, "vm", "start", "other"); exit == 0 || !strings.Contains(stderr, "QV_ERR_BUSY") || !strings.Contains(stderr, "VM owner has "+address) {
		t.Errorf("a second VM, exit %d: %s", exit, stderr)
	}
	restartDaemon(t, n)
	if s := info(t, n); s.Daemon.Adopted != 1 || s.CryptoProvider != "software" {
		t.Errorf("the daemon that came after: %+v, cryptography served by %q", s.Daemon, s.CryptoProvider)
	}
	if f := functions(t, n)[address]; f.VM != "owner" {
		t.Errorf("the card after a restart of the daemon: %+v", f)
	}
	ended(t, n, "owner")
	a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/vms/owner/console?device=serial", nil)
	if err != nil {
		t.Fatal(err)
	}
	said := string(a.Body)
	t.Logf("the guest:\n%s", said)
	if !strings.Contains(said, "--- PASS: TestLoadGuest") || !regexp.MustCompile(`stray interrupts: [1-9]`).MatchString(said) {
		t.Error("the card did not work in the guest, or its interrupts did not arrive")
	}
	cardIsBack(t, n)
	wantFault(t, n, address)
	if soaking() {
		killOwner(t, n)
	}
	t.Logf("the card in a guest took %.1f s", time.Since(began).Seconds())
}

// restartDaemon has PID 1 start the daemon anew, which adopts the VM that runs.
func restartDaemon(t *testing.T, n *lab.Node) {
	t.Helper()
	mark := n.ConsoleMark()
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/system/restart-daemon", nil, nil); err != nil {
		t.Fatal(err)
	}
	if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
		t.Fatal(err)
	}
	settled(t, n)
}

// killOwner ends the VM's process while the guest works with the card, again and again.
func killOwner(t *testing.T, n *lab.Node) {
	for i := range 5 {
		act(t, n, "owner", "start")
		var v struct {
			PID int `json:"pid"`
		}
		if err := n.Call(t.Context(), http.MethodGet, "/api/v1/vms/owner", nil, &v); err != nil {
			t.Fatal(err)
		}
		until(t, "the guest works", func() bool {
			a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/vms/owner/console?device=serial", nil)
			starts := strings.Split(string(a.Body), "GUEST: card at") // the ring keeps those before
			return err == nil && len(starts) == i+3 && strings.Contains(starts[i+2], "No irq handler for")
		})
		if _, err := n.Shell(t.Context(), fmt.Sprintf("kill -9 %d", v.PID)); err != nil {
			t.Fatal(err)
		}
		if v := ended(t, n, "owner"); v.State != "CRASHED" {
			t.Errorf("state %s", v.State)
		}
		cardIsBack(t, n)
	}
}

func defineCardVM(t *testing.T, n *lab.Node, name string, pqc map[string]any, pci []any) {
	t.Helper()
	config := map[string]any{
		"name": name, "memory": map[string]any{"size": "128M"}, "console": "serial", "pci": pci,
		"boot": map[string]any{"firmware": "direct", "kernel": "card-kernel", "initrd": "card-initrd",
			"cmdline": fmt.Sprintf("console=ttyS0 quiet panic=-1 mitigations=off hugepages=16 operations=%d", rounds(500, 10_000))},
	}
	if pqc != nil {
		config["pqc"] = pqc
	}
	if pci == nil {
		delete(config, "pci")
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms", config, nil); err != nil {
		t.Fatal(err)
	}
}

// ended waits until a VM has no process.
func ended(t *testing.T, n *lab.Node, name string) vm {
	t.Helper()
	var v vm
	until(t, name+" ends", func() bool {
		if err := n.Call(t.Context(), http.MethodGet, "/api/v1/vms/"+name, nil, &v); err != nil {
			t.Fatal(err)
		}
		return v.State != "RUNNING"
	})
	return v
}

// cardIsBack waits until the node uses its card again.
func cardIsBack(t *testing.T, n *lab.Node) {
	t.Helper()
	back := time.Now()
	until(t, "the node has its card back", func() bool { return info(t, n).CryptoProvider == "quac100" })
	s := info(t, n)
	if c := s.Cards[0]; c.SelfTest != "passed" || c.Serial == "" {
		t.Errorf("the card that is back: %+v", c)
	}
	if f := functions(t, n)[s.Cards[0].Address]; f.VM != "" || !f.Assignable {
		t.Errorf("the card afterwards: %+v", f)
	}
	t.Logf("the card served the node %.1f s after its VM ended", time.Since(back).Seconds())
}

// wantFault wants the node's log to say that the IOMMU stopped the card, and whose it was.
func wantFault(t *testing.T, n *lab.Node, address string) {
	t.Helper()
	a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/logs?subsystem=pci", nil)
	if err != nil {
		t.Fatal(err)
	}
	want := regexp.MustCompile(regexp.QuoteMeta(address) + ` of VM owner tried to (read|write) 0xe0000000`)
	if !want.Match(a.Body) {
		text, _ := json.MarshalIndent(json.RawMessage(a.Body), "", " ")
		t.Errorf("the log does not tell of DMA that was stopped: %s", text)
	}
}
