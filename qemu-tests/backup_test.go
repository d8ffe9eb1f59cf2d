package qemutests

import (
	"net/http"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/qemu-tests/lab"
)

// restoredElsewhere backs a node up that has the network lab and a VM, and restores
// it on another machine, which then is that node: by its authority, its id, its
// tokens, its network and its VM. Images are not in a backup: they are uploaded
// again, and the VM runs.
func restoredElsewhere(t *testing.T, from *lab.Node, vm string) {
	t.Helper()
	dir := t.TempDir()
	file, passphrase := filepath.Join(dir, "node.qvb"), filepath.Join(dir, "passphrase")
	place(t, passphrase, []byte("a passphrase of some length\n"))
	token := func(description string) string {
		t.Helper()
		var made spec.TokenSecret
		if err := from.Call(t.Context(), http.MethodPost, "/api/v1/tokens", map[string]any{"description": description}, &made); err != nil {
			t.Fatal(err)
		}
		return made.Token
	}
	known := token("in the backup")
	if out, stderr, exit := cli(t, from, "system", "backup", "--output", file, "--passphrase-file", passphrase); exit != 0 {
		t.Fatalf("backup: exit %d: %s%s", exit, out, stderr)
	}
	stranger := token("too late")
	before := systemState(t, from)

	n := boot(t, lab.Options{Name: "elsewhere", Memory: 1536, DataDisk: 512, IOMMU: lab.IOMMUNone})
	if fresh := systemState(t, n); n.CA == from.CA || fresh.NodeID == before.NodeID {
		t.Fatalf("another machine has the authority %s and the id %s already", n.CA, fresh.NodeID)
	}
	mark := n.ConsoleMark()
	out, stderr, exit := cli(t, n, "system", "restore", file, "--passphrase-file", passphrase)
	if exit != 0 || !strings.Contains(out, before.Hostname) {
		t.Fatalf("restore: exit %d: %s%s", exit, out, stderr)
	}
	again(t, n, mark)
	for token, want := range map[string]int{known: http.StatusOK, stranger: http.StatusUnauthorized} {
		n.Token = token
		for _, path := range []string{"networks/lab", "vms/" + vm} {
			if a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/"+path, nil); err != nil || a.Status != want {
				t.Errorf("%s: %d %v, want %d", path, a.Status, err, want)
			}
		}
	}
	n.Token = known
	if after := systemState(t, n); n.CA != from.CA || after.NodeID != before.NodeID {
		t.Errorf("authority %s, node %s; the backup is of %s, node %s", n.CA, after.NodeID, from.CA, before.NodeID)
	}
	files, err := shared.small()
	if err != nil {
		t.Fatal(err)
	}
	upload(t, n, "linux", "kernel", files.Kernel)
	upload(t, n, "agent", "initrd", files.Initrd)
	act(t, n, vm, "start")
	waitState(t, n, vm, "RUNNING", time.Minute)
}
