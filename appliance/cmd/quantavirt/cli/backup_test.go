package cli

import (
	"io"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
)

func TestBackupFile(t *testing.T) {
	dir := t.TempDir()
	file := filepath.Join(dir, "node.qvb")
	secret := filepath.Join(dir, "secret")
	if err := os.WriteFile(secret, []byte("correct horse\nanother line\n"), 0o600); err != nil {
		t.Fatal(err)
	}
	cut := false
	var got string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		got = r.URL.Path + " " + r.Header.Get("X-Passphrase") + string(body)
		switch {
		case r.URL.Path == "/api/v1/system/restore":
			answerJSON(w, 202, `{"hostname":"node7","node_id":"n1","version":"1","created_at":"2026-01-15T14:32:01Z"}`)
		case cut:
			_, _ = io.WriteString(w, "half")
			_ = http.NewResponseController(w).Flush()
			panic(http.ErrAbortHandler)
		default:
			_, _ = io.WriteString(w, "all of it")
		}
	}))
	r := runIn(t, env, nil, "system", "backup", "--output", file, "--passphrase-file", secret)
	if data, err := os.ReadFile(file); r.exit != 0 || err != nil || string(data) != "all of it" || !strings.Contains(got, `"passphrase":"correct horse"`) {
		t.Errorf("%+v: %q, %v; asked %s", r, data, err, got)
	}
	if info, err := os.Stat(file); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("%v, %v", info.Mode(), err)
	}
	if r := runIn(t, env, nil, "system", "backup", "--output", file, "--passphrase-file", secret); r.exit != 5 {
		t.Errorf("over a file that is there: %+v", r)
	}
	env[passphraseEnv] = "from the environment"
	r = runIn(t, env, nil, "system", "restore", file)
	if r.exit != 0 || !strings.HasPrefix(r.out, "The state of node7") || got != "/api/v1/system/restore ZnJvbSB0aGUgZW52aXJvbm1lbnQ=all of it" {
		t.Errorf("%+v; asked %s", r, got)
	}
	cut = true
	r = runIn(t, env, nil, "system", "backup", "--output", file+"2")
	if entries, _ := os.ReadDir(dir); r.exit != 12 || len(entries) != 2 {
		t.Errorf("a backup that was cut off: %+v, %v", r, entries)
	}
	delete(env, passphraseEnv)
	if r := runIn(t, env, nil, "system", "restore", file); r.exit != 2 || !strings.HasPrefix(r.err, "Error: QV_ERR_INVAL ") {
		t.Errorf("without a passphrase: %+v", r)
	}
}
