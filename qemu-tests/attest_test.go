package qemutests

import (
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"time"

	"quantavirt/image"
	"quantavirt/qemu-tests/guest/first"
	"quantavirt/qemu-tests/lab"
)

// attestsVM has a VM prove what it was started with and, by the TPM, on which node; then
// with another command line, which is named.
func (s *sealing) attestsVM(n *lab.Node) {
	t := s.t
	t.Helper()
	began := time.Now()
	kernel := filepath.Join(t.TempDir(), "kernel")
	if err := os.WriteFile(kernel, first.Kernel(), 0o644); err != nil {
		t.Fatal(err)
	}
	upload(t, n, "first", "kernel", kernel)
	config := map[string]any{
		"name": "proven", "memory": map[string]any{"size": "64M"}, "pqc": map[string]any{"attestation": true},
		"storage": []any{map[string]any{"disk": "kept", "readonly": true}},
		"boot":    map[string]any{"firmware": "direct", "kernel": "first", "cmdline": "quiet"},
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms", config, nil); err != nil {
		t.Fatal(err)
	}
	_, stderr, exit := cli(t, n, "vm", "attest", "proven", "--nonce", nonce)
	if exit != 5 || !strings.Contains(stderr, "QV_ERR_STATE") {
		t.Errorf("a VM that does not run, exit %d: %s", exit, stderr)
	}
	// The disk is 1 MiB of zeroes.
	policy := filepath.Join(t.TempDir(), "policy.json")
	text := `{"disks": [{"name": "kept", "readonly": true, "content": "30e14955ebf1352266dc2ff8067e68104607e750abb9d3b36582b8af909fcb58"}]}`
	if err := os.WriteFile(policy, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	exported := filepath.Join(t.TempDir(), "config.json")
	s.run(n, "vm", "export", "proven", "-o", exported)
	says := []string{"--uki", imageFile(image.UKIFile), "--kernel", kernel, "--initrd", "", "--cmdline", "quiet", "--config", exported, "--policy", policy}

	act(t, n, "proven", "start")
	act(t, n, "proven", "reset") // from the bytes that were measured
	if out, exit := s.check(n, []string{"vm", "attest", "proven"}, says...); exit != 0 || strings.Contains(out, "WRONG") {
		t.Errorf("the good VM was refused, exit %d:\n%s", exit, out)
	}
	s.run(n, "vm", "stop", "proven", "--force")
	s.run(n, "vm", "set", "proven", "boot.cmdline=loud")
	s.run(n, "vm", "start", "proven")
	out, exit := s.check(n, []string{"vm", "attest", "proven"}, says...)
	_, verdict, _ := strings.Cut(out, "Error: PQC_ERR_ATTESTATION")
	if exit != 10 || !strings.Contains(verdict, "cmdline: is loud, not quiet; config: ") || strings.Contains(verdict, "kernel: ") || strings.Contains(verdict, "host") {
		t.Errorf("another command line, exit %d:\n%s", exit, out)
	}
	s.run(n, "vm", "destroy", "proven", "--force")
	t.Logf("the VM's attestations took %.1f s", time.Since(began).Seconds())
}
