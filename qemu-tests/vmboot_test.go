package qemutests

import (
	"context"
	"net/http"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/image/tools"
	"quantavirt/qemu-tests/guest"
	"quantavirt/qemu-tests/lab"
)

// bootNetwork is the network of a node whose guests boot from it.
var bootNetwork = map[string]any{"name": "boot", "subnet": "10.19.0.1/24", "nat": false, "boot_file": "start.ipxe", "boot_images": []string{"memtest"}}

// vmBootArgs are for the node of bootGuests: its configuration, and the disks.
func vmBootArgs(t *testing.T, disks guest.BootDisks) []string {
	doc := map[string]any{"schema_version": 1, "networks": []any{bootNetwork}}
	return append(configurationArgs(t, doc), disks.QEMUArgs()...)
}

// bootGuests starts guests over the API by SeaBIOS: what a user does who has a disk or
// a network to boot from.
func bootGuests(t *testing.T, n *lab.Node, root tools.Root) {
	t.Run("disk", func(t *testing.T) { bootFromDisk(t, n, root) })
	t.Run("network", func(t *testing.T) { bootFromNetwork(t, n, root) })
}

// screen waits for texts on the console of a VM, one after the other.
func screen(t *testing.T, n *lab.Node, name string, texts ...string) {
	t.Helper()
	began := time.Now()
	c := attach(t, n, name)
	for _, text := range texts {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		err := c.Await(ctx, text)
		cancel()
		if err != nil {
			t.Fatal(err)
		}
		t.Logf("%q %.1f s after the start", text, time.Since(began).Seconds())
	}
}

// bootVM defines and starts a VM, waits for texts on its console, and destroys it.
func bootVM(t *testing.T, n *lab.Node, config map[string]any, texts ...string) {
	t.Helper()
	name := config["name"].(string)
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms", config, nil); err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() {
		_ = n.Call(context.Background(), http.MethodDelete, "/api/v1/vms/"+name+"?force=true&wait=60", nil, nil)
	})
	act(t, n, name, "start")
	screen(t, n, name, texts...)
}

// A VM with a disk and without a boot section boots the disk: Debian's ipxe.iso. That
// iPXE gets an answer is left to bootFromNetwork in the reduced form.
func bootFromDisk(t *testing.T, n *lab.Node, root tools.Root) {
	f, err := os.Open(root.Path("usr", "lib", "ipxe", "ipxe.iso"))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if err := n.Upload(t.Context(), "/api/v1/disks?name=ipxe", f); err != nil {
		t.Fatal(err)
	}
	texts := []string{"SeaBIOS", "Booting from Hard Disk", "iPXE 1.21", "Configuring (net0"}
	if rounds(0, 1) > 0 {
		texts = append(texts, "Filename: start.ipxe")
	}
	bootVM(t, n, map[string]any{"name": "ipxe", "memory": map[string]any{"size": "128M"},
		"storage": []any{map[string]any{"disk": "ipxe"}}, "network": []any{map[string]any{"network": "boot"}}}, texts...)
}

// A VM without a disk boots from its network: iPXE's option ROM, our DHCP and TFTP, a
// script, and memtest86+ up to its running screen.
func bootFromNetwork(t *testing.T, n *lab.Node, root tools.Root) {
	const script = "#!ipxe\necho machine ${manufacturer} ${uuid}\nkernel memtest console=ttyS0,115200 nobench\nboot\n"
	file := filepath.Join(t.TempDir(), "start.ipxe")
	if err := os.WriteFile(file, []byte(script), 0o644); err != nil {
		t.Fatal(err)
	}
	upload(t, n, "start.ipxe", "raw", file)
	upload(t, n, "memtest", "raw", root.Path("boot", "memtest86+x64.bin"))
	const id = "5156b007-0000-4000-8000-0123456789ab"
	bootVM(t, n, map[string]any{"name": "pxe", "uuid": id, "memory": map[string]any{"size": "128M"}, "boot": map[string]any{"order": []string{"disk", "network"}},
		"network": []any{map[string]any{"network": "boot"}}},
		"SeaBIOS", "iPXE", "start.ipxe", "machine QuantaVirt "+id, "memtest", "Memtest86+", "Testing:")
}
