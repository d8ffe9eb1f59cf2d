package cli

import (
	"bytes"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/appliance/support/archive"
	"quantavirt/internal/qverr"
)

// supportFile is one of a node with so many VMs.
func supportFile(t *testing.T, vms ...string) []byte {
	t.Helper()
	var out bytes.Buffer
	w := archive.NewWriter(&out, archive.Manifest{Hostname: "node7"})
	do := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	do(w.Begin("system"))
	do(w.JSON("info.json", map[string]string{"hostname": "node7"}))
	do(w.Begin("logs"))
	do(w.Text("node.log", bytes.Repeat([]byte("0123456789abcde\n"), 150_000), 0)) // 2.4 MB
	do(w.Begin("vms"))
	for _, vm := range vms {
		do(w.JSON(vm+"/vm.json", vm))
		do(w.JSON(vm+"/stats.json", vm))
	}
	do(w.Begin("quac100"))
	do(w.Begin("kernel"))
	w.Fail(qverr.New(qverr.Timeout, "kernel/messages: it has not\tanswered"))
	do(w.Begin("network"))
	do(w.Close())
	return out.Bytes()
}

func TestSupportBundle(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "diag.tar.gz")
	body, cut := supportFile(t, "web", "db"), 0
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method+" "+r.URL.Path != "GET /api/v1/system/support-bundle" {
			fail(w, qverr.New(qverr.NoEnt, "%s", r.URL.Path))
			return
		}
		_, _ = w.Write(body[:len(body)-cut])
		if cut > 0 {
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		}
	}))
	r := runIn(t, env, nil, "system", "support-bundle", "--output", file)
	want := `Collecting system info...         done
Collecting hypervisor logs...     done (2.4 MB)
Collecting VM configurations...   done (2 VMs)
Collecting QUAC 100 diagnostics.. done
Collecting kernel messages...     incomplete
Collecting network state...       done
Redacting sensitive data...       done

Support bundle: ` + file + ` (` + decimal(int64(len(body))) + ` compressed)
Upload to: support@dyber.org
`
	if r.exit != 0 || r.out != want || r.err != "not collected: QV_ERR_TIMEOUT (-12): kernel/messages: it has not answered\n" {
		t.Errorf("exit %d\n%s\nwant\n%s\n%s", r.exit, r.out, want, r.err)
	}
	if data, err := os.ReadFile(file); err != nil || !bytes.Equal(data, body) {
		t.Errorf("the file is not what the node sent: %v", err)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if r := runIn(t, env, nil, "system", "support-bundle", "--output", file); r.exit != 5 || r.out != "" {
		t.Errorf("over a file that is there: %+v", r)
	}
	body = supportFile(t, "web")
	if r := runIn(t, env, nil, "system", "support-bundle", "--output", file+"1"); r.exit != 0 || !strings.Contains(r.out, "done (1 VM)\n") {
		t.Errorf("one VM: %+v", r)
	}
	if r := runIn(t, env, nil, "-q", "system", "support-bundle", "--output", file+"2"); r.exit != 0 || strings.Contains(r.out, "Collecting") {
		t.Errorf("quiet: %+v", r)
	}
	if r := runIn(t, env, nil, "system", "support-bundle"); r.exit != 2 {
		t.Errorf("without a file: %+v", r)
	}
	if r := runIn(t, env, nil, "system", "support-bundle", "--output", filepath.Join(dir, "none", "x")); r.exit == 0 || r.out != "" {
		t.Errorf("into no folder: %+v", r)
	}
	cut = 1
	r = runIn(t, env, nil, "system", "support-bundle", "--output", file+"3")
	if r.exit != 12 || !strings.HasSuffix(r.out, "Redacting sensitive data...       failed\n") {
		t.Errorf("cut off: %+v", r)
	}
	cut, body = 0, []byte(`{"hello": "I am no bundle"}`)
	if r := runIn(t, env, nil, "system", "support-bundle", "--output", file+"3"); r.exit == 0 || r.out != "" {
		t.Errorf("no bundle: %+v", r)
	}
	entries, err := os.ReadDir(dir)
	if err != nil || len(entries) != 3 {
		t.Errorf("left behind: %v, %v", entries, err)
	}
}

func TestDecimal(t *testing.T) {
	for n, want := range map[int64]string{0: "0.0 kB", 999: "1.0 kB", 12_345: "12 kB", 8_200_000: "8.2 MB", 42_000_000: "42 MB", 3_000_000_000: "3.0 GB"} {
		if got := decimal(n); got != want {
			t.Errorf("%d: %s, want %s", n, got, want)
		}
	}
}
