package daemon

import (
	"bytes"
	"encoding/base64"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// A backup brings back what a node was: names, tokens and authority.
func TestBackupAndRestore(t *testing.T) {
	n := newNode(t)
	n.ready()
	ca, token := n.ca, n.token
	a := n.call("POST", "/api/v1/system/backup", `{"passphrase":"correct horse"}`)
	n.want(200, a, nil)
	file := a.body
	n.want(422, n.call("POST", "/api/v1/system/backup", `{"passphrase":"short"}`), nil)

	other := newNode(t)
	restore := func(passphrase string, body []byte) answer {
		req := other.request("POST", "/api/v1/system/restore", bytes.NewReader(body))
		req.Header.Set("Content-Type", "application/octet-stream")
		req.Header.Set("X-Passphrase", base64.StdEncoding.EncodeToString([]byte(passphrase)))
		return other.do(req)
	}
	if e := restore("another horse", file).err(t); e.Code != qverr.Inval {
		t.Errorf("wrong passphrase: %+v", e)
	}
	if e := restore("correct horse", file[:len(file)-1]).err(t); e.Code != qverr.Config {
		t.Errorf("cut file: %+v", e)
	}
	var r spec.Restored
	other.want(202, restore("correct horse", file), &r)
	if r.Version == "" || r.NodeID == "" {
		t.Errorf("%+v", r)
	}
	select {
	case err := <-other.ended:
		if err != nil {
			t.Fatal(err)
		}
	case <-time.After(30 * time.Second):
		t.Fatal("the daemon does not end")
	}
	other.token = ""
	other.start()
	if other.token != "" || other.ca != ca {
		t.Errorf("token %q, authority %s instead of %s", other.token, other.ca, ca)
	}
	other.token = token
	var vm, was spec.VM
	n.want(200, n.call("GET", "/api/v1/vms/web", ""), &was)
	other.want(200, other.call("GET", "/api/v1/vms/web", ""), &vm)
	if vm.UUID != was.UUID || vm.UUID == "" {
		t.Errorf("VM %+v was %+v", vm, was)
	}
	// What the images held is not in a backup.
	other.want(404, other.call("GET", "/api/v1/images/k", ""), nil)
}
