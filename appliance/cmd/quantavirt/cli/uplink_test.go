package cli

import (
	"encoding/json"
	"io"
	"net/http"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

const changed = `{"config":{"mode":"dhcp"},"source":"default","status":{"state":"up","addresses":["192.0.2.9/24"]},
	"pending":{"config":{"mode":"static","address":"192.0.2.9/24"},"seconds_left":30}}`

func TestUplinkSetConfirms(t *testing.T) {
	var asked []string
	refuse := 1
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		body, _ := io.ReadAll(r.Body)
		asked = append(asked, strings.TrimSpace(r.Method+" "+r.URL.String()+" "+string(body)))
		switch {
		case r.Method == http.MethodPut:
			answerJSON(w, 202, changed)
		case refuse > 0:
			refuse--
			fail(w, qverr.New(qverr.Again, "not up yet"))
		default:
			answerJSON(w, 200, changed)
		}
	}))
	r := runIn(t, env, nil, "system", "uplink", "set", "192.0.2.9/24", "--gateway", "192.0.2.1", "--dns", "192.0.2.2,192.0.2.3", "--confirm-seconds", "30")
	want := []string{
		`PUT /api/v1/system/uplink?confirm_seconds=30 {"address":"192.0.2.9/24","dns":["192.0.2.2","192.0.2.3"],"gateway":"192.0.2.1","mode":"static"}`,
		"POST /api/v1/system/uplink/confirm", "POST /api/v1/system/uplink/confirm",
	}
	if r.exit != 0 || strings.Join(asked, "\n") != strings.Join(want, "\n") || !strings.HasPrefix(r.out, "The change is confirmed") {
		t.Errorf("%+v of\n%s", r, strings.Join(asked, "\n"))
	}

	asked = nil
	if r := runIn(t, env, nil, "system", "uplink", "set", "dhcp", "--no-confirm"); r.exit != 0 || len(asked) != 1 ||
		!strings.Contains(r.out, "reverted in 30 s unless confirmed") {
		t.Errorf("%+v of %v", r, asked)
	}
	if r := runIn(t, env, nil, "system", "uplink", "set", "nowhere"); r.exit != 2 {
		t.Errorf("%+v", r)
	}
}

// The change that was reverted, or a token that does not count any more, is not
// asked for again.
func TestUplinkSetFails(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPut {
			answerJSON(w, 202, changed)
			return
		}
		fail(w, qverr.New(qverr.State, "no change waits"))
	}))
	if r := runIn(t, env, nil, "system", "uplink", "set", "dhcp"); r.exit != 5 {
		t.Errorf("%+v", r)
	}
}

func TestPlaces(t *testing.T) {
	var u spec.Uplink
	if err := json.Unmarshal([]byte(changed), &u); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		host string
		in   spec.UplinkConfig
		want string
	}{
		{"https://192.0.2.7:9400", spec.UplinkConfig{Mode: "static", Address: "192.0.2.9/24"}, "https://192.0.2.9:9400 https://192.0.2.7:9400"},
		{"https://192.0.2.9:9400", spec.UplinkConfig{Mode: "static", Address: "192.0.2.9/24"}, "https://192.0.2.9:9400"},
		{"https://192.0.2.7:9400", spec.UplinkConfig{Mode: "dhcp"}, "https://192.0.2.7:9400"},
		{"https://192.0.2.7:9400", spec.UplinkConfig{Mode: "default"}, "https://192.0.2.9:9400 https://192.0.2.7:9400"},
		{"vsock://2", spec.UplinkConfig{Mode: "static", Address: "192.0.2.9/24"}, "vsock://2"},
		{"unix:///x", spec.UplinkConfig{Mode: "static", Address: "192.0.2.9/24"}, "unix:///x"},
	} {
		a := &app{api: &client{target: target{name: c.host}}}
		if got := strings.Join(a.places(u, c.in), " "); got != c.want {
			t.Errorf("%s, %+v: %s, want %s", c.host, c.in, got, c.want)
		}
	}
}
