package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"quantavirt/internal/sealed"
)

// The recovery key is made here, sent to the node, and shown once it has taken it.
func TestRecoveryKeyCommand(t *testing.T) {
	var sent struct {
		RecoveryKey string `json:"recovery_key"`
	}
	status := http.StatusNoContent
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		if err := json.Unmarshal(body, &sent); err != nil || r.Method+" "+r.URL.Path != "POST /api/v1/system/recovery-key" {
			t.Errorf("%s %s %s: %v", r.Method, r.URL.Path, body, err)
		}
		if status != http.StatusNoContent {
			answerJSON(w, status, `{"error":{"code":-9,"name":"QV_ERR_PERM","message":"no","detail":"the volume is not sealed for this boot","subsystem":"core","request_id":"r","transient":false}}`)
			return
		}
		w.WriteHeader(status)
	}))
	r := runIn(t, env, nil, "system", "recovery-key")
	if _, err := sealed.ParseRecoveryKey(sent.RecoveryKey); err != nil || r.exit != 0 || !strings.Contains(r.err, sent.RecoveryKey) || strings.Contains(r.out, sent.RecoveryKey) {
		t.Errorf("%+v, sent %+v, %v", r, sent, err)
	}
	first := sent.RecoveryKey
	status = http.StatusForbidden
	if r := runIn(t, env, nil, "system", "recovery-key"); r.exit == 0 || strings.Contains(r.err, sent.RecoveryKey) || !strings.Contains(r.err, "QV_ERR_PERM") || sent.RecoveryKey == first {
		t.Errorf("refused: %+v", r)
	}
}

// What went wrong beside a task that succeeded is said.
func TestTaskWarnings(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, `{"id":"t1","kind":"system.install","target":"disks/dev/sda","state":"succeeded","progress":{"done":0,"total":0},"created_at":"2026-01-15T14:32:01Z",
			"warnings":[{"code":-11,"name":"QV_ERR_IO","message":"the firmware has no boot entry for the disk","recovery":""}]}`)
	}))
	const want = "QV_ERR_IO (-11): the firmware has no boot entry for the disk"
	if r := runIn(t, env, nil, "task", "wait", "t1"); r.exit != 0 || !strings.Contains(r.err, "Warning: "+want) {
		t.Errorf("%+v", r)
	}
	if r := runIn(t, env, nil, "task", "show", "t1"); r.exit != 0 || !strings.Contains(r.out, want) {
		t.Errorf("%+v", r)
	}
}
