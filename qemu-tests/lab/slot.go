package lab

import (
	"context"
	"encoding/json"
	"fmt"
	"io"
	"maps"
	"net"
	"net/http"
	"path/filepath"
	"strings"
)

// cardDevice is the card's model for QEMU, which takes it as JSON only.
func cardDevice(dir string, where map[string]any) map[string]any {
	device := map[string]any{
		"driver": "vfio-user-pci", "x-msg-timeout": 60000,
		"socket": map[string]any{"type": "unix", "path": filepath.Join(dir, "card.sock")},
	}
	maps.Copy(device, where)
	return device
}

func jsonText(v any) string {
	text, err := json.Marshal(v)
	if err != nil {
		panic(err) // maps of texts and numbers
	}
	return string(text)
}

// PutCard puts the card into its slot (Options.Slot) while the node runs. QEMU 11.1 cannot
// take it out again: device_del ends it, as vfio-user-pci's finalizer takes its PBA out of a
// BAR that is gone already (memory_region_del_subregion: Assertion `subregion->container ==
// mr' failed).
func (n *Node) PutCard(e *Events) error {
	device := cardDevice(n.Dir, map[string]any{"id": "card", "bus": "cardslot"})
	if err := e.Execute("device_add", device); err != nil {
		return fmt.Errorf("put the card into its slot: %w", err)
	}
	return nil
}

// cardControl is the model's control socket.
func (n *Node) cardControl() string { return filepath.Join(n.Dir, "control.sock") }

// BreakCard gives the card faults, in JSON: see package quac100/faults.
func (n *Node) BreakCard(ctx context.Context, faults string) error {
	client := http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", n.cardControl())
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodPut, "http://card/faults", strings.NewReader(faults))
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return fmt.Errorf("lab: faults of the card: %w", err)
	}
	defer resp.Body.Close()
	if text, _ := io.ReadAll(resp.Body); resp.StatusCode != http.StatusNoContent {
		return fmt.Errorf("lab: faults of the card: %s: %s", resp.Status, text)
	}
	return nil
}
