package qemutests

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/qemu-tests/lab"
)

// restoredElsewhere backs a node up that has the network lab and the VM
// configured, and restores it on another machine, which then is that node: by its
// authority, its id, its tokens, its network and its VM. Images are not in a
// backup: they are uploaded again, and the VM runs.
func restoredElsewhere(t *testing.T, from *lab.Node) {
	t.Helper()
	dir := t.TempDir()
	file, passphrase := filepath.Join(dir, "node.qvb"), filepath.Join(dir, "passphrase")
	place(t, passphrase, []byte("a passphrase of some length\n"))
	if out, stderr, exit := cli(t, from, "system", "backup", "--output", file, "--passphrase-file", passphrase); exit != 0 {
		t.Fatalf("backup: exit %d: %s%s", exit, out, stderr)
	}
	var token spec.TokenSecret
	if err := from.Call(t.Context(), http.MethodPost, "/api/v1/tokens", map[string]any{"description": "too late"}, &token); err != nil {
		t.Fatal(err)
	}
	before := systemState(t, from)

	n := boot(t, lab.Options{Name: "elsewhere", Memory: 1536, DataDisk: 512, IOMMU: lab.IOMMUNone})
	if n.CA == from.CA {
		t.Fatal("two machines have one authority")
	}
	mark := n.ConsoleMark()
	out, stderr, exit := cli(t, n, "system", "restore", file, "--passphrase-file", passphrase)
	if exit != 0 || !strings.Contains(out, "rack7") {
		t.Fatalf("restore: exit %d: %s%s", exit, out, stderr)
	}
	again(t, n, mark)
	n.Token = from.Token
	after := systemState(t, n)
	if n.CA != from.CA || after.NodeID != before.NodeID || after.NodeID == "" {
		t.Errorf("authority %s, node %s; the backup is of %s, node %s", n.CA, after.NodeID, from.CA, before.NodeID)
	}
	for _, path := range []string{"networks/lab", "vms/configured"} {
		a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/"+path, nil)
		if err != nil || a.Status != http.StatusOK {
			t.Errorf("%s: %d %v", path, a.Status, err)
		}
	}
	stranger := *n
	stranger.Token = token.Token
	if a, err := stranger.Do(t.Context(), http.MethodGet, "/api/v1/vms", nil); err != nil || a.Status != http.StatusUnauthorized {
		t.Errorf("a token made after the backup: %d %v", a.Status, err)
	}
	files, err := shared.small()
	if err != nil {
		t.Fatal(err)
	}
	upload(t, n, "linux", "kernel", files.Kernel)
	upload(t, n, "agent", "initrd", files.Initrd)
	act(t, n, "configured", "start")
	waitState(t, n, "configured", "RUNNING", time.Minute)
	if err := n.Down(); err != nil {
		t.Fatal(err)
	}
	if err := os.Remove(file); err != nil {
		t.Fatal(err)
	}
}
