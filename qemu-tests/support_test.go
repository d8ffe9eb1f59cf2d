package qemutests

import (
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/support/archive/archivetest"
	"quantavirt/qemu-tests/lab"
)

// supportLines is what the command prints of a node with VMs and a card that lacks nothing.
var supportLines = regexp.MustCompile(`^Collecting system info\.\.\.         done
Collecting hypervisor logs\.\.\.     done \([0-9.]+ [kM]B\)
Collecting VM configurations\.\.\.   done \([0-9]+ VMs?\)
Collecting QUAC 100 diagnostics\.\. done
Collecting kernel messages\.\.\.     done
Collecting network state\.\.\.       done
Redacting sensitive data\.\.\.       done

Support bundle: \S+ \([0-9.]+ [kM]B compressed\)
Upload to: support@dyber\.org
$`)

// supportBundle fetches one as a user does, and returns its files by their names in its
// folder.
func supportBundle(t *testing.T, n *lab.Node) (files map[string]string, printed string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "diag.tar.gz")
	out, stderr, exit := cli(t, n, "system", "support-bundle", "--output", path)
	if exit != 0 || stderr != "" {
		t.Fatalf("exit %d\n%s%s", exit, out, stderr)
	}
	f, err := os.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	_, files = archivetest.Files(t, f)
	return files, out
}

// supported looks at the support bundle of a node with a card and a VM that runs, and
// prints the token.
func supported(t *testing.T, n *lab.Node, vm string, c *lab.Console) {
	t.Helper()
	if _, err := c.Run(t.Context(), "sum "+n.Token+" 8"); err == nil || !strings.Contains(err.Error(), n.Token) {
		t.Fatalf("the guest does not say that it has no such disk: %v", err)
	}
	start := time.Now()
	files, printed := supportBundle(t, n)
	t.Logf("%.1f s, %d files", time.Since(start).Seconds(), len(files))
	if !supportLines.MatchString(printed) {
		t.Errorf("printed:\n%s", printed)
	}
	for name, want := range map[string]string{
		"system/info.json":                  `"crypto_provider": "quac100"`,
		"system/capabilities.json":          `"firmware:direct"`,
		"system/disks.json":                 `"data volume"`,
		"system/tasks.json":                 `"kind": "vm.start"`,
		"logs/node.log":                     "VM " + vm + " is RUNNING",
		"logs/boot.log":                     "the API is served",
		"vms/" + vm + "/vm.json":            `"state": "RUNNING"`,
		"vms/" + vm + "/stats.json":         `"guest_bytes"`,
		"vms/" + vm + "/virtio-console.log": "/dev/[redacted]: no such file",
		"quac100/cards.json":                `"self_test": "passed"`,
		"kernel/messages.log":               "quantavirt.token-hash=[redacted]",
		"kernel/meminfo":                    "MemTotal:",
		"network/kernel.json":               `"name": "qvbr0"`,
		"network/rules.nft":                 `oifname "eth0" ip saddr 192.168.200.0/24 masquerade`,
		"network/leases.json":               `"vm": "` + vm + `"`,
		"manifest.json":                     `"redacted": `,
	} {
		if !strings.Contains(files[name], want) {
			t.Errorf("%s has no %s: %.500s", name, want, files[name])
		}
	}
	for name, text := range files {
		if strings.Contains(text, n.Token) {
			t.Errorf("%s has the token", name)
		}
	}
}
