package cli

import (
	"io"
	"net/http"
	"strings"
	"testing"
)

func TestLimit(t *testing.T) {
	var patched string
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.Method == http.MethodPatch {
			body, _ := io.ReadAll(r.Body)
			patched = string(body)
		}
		answerJSON(w, 200, `{"name":"web","config":{"storage":[{"disk":"a","iops":7,"queues":2},{"path":"/disks/b"}]}}`)
	}))
	for _, tc := range []struct {
		args []string
		want string // "" is a wrong usage
	}{
		{[]string{"a", "--bandwidth", "20m"}, `{"storage":[{"bandwidth":"20M","disk":"a","iops":7,"queues":2},{"path":"/disks/b"}]}`},
		{[]string{"a", "--iops", "0"}, `{"storage":[{"disk":"a","queues":2},{"path":"/disks/b"}]}`},
		{[]string{"/disks/b", "--iops", "5"}, `{"storage":[{"disk":"a","iops":7,"queues":2},{"iops":5,"path":"/disks/b"}]}`},
		{[]string{"disk1", "--iops", "5"}, `{"storage":[{"disk":"a","iops":7,"queues":2},{"iops":5,"path":"/disks/b"}]}`},
		{[]string{"a"}, ""},
		{[]string{"c", "--iops", "5"}, ""},
		{[]string{"a", "--bandwidth", "fast"}, ""},
	} {
		patched = ""
		r := runIn(t, env, nil, append([]string{"vm", "limit", "web"}, tc.args...)...)
		if patched != tc.want || (r.exit == 0) != (tc.want != "") {
			t.Errorf("%v: exit %d, %s%s, sent %s", tc.args, r.exit, r.out, r.err, patched)
		}
	}
}

func TestStatsOfDisks(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, `{"state":"RUNNING","time":"2026-01-15T14:32:01Z","vmm":{"disks":[{"id":"disk0","throttled":5,"latency":{"count":4,"sum_us":1000,"max_us":700}}]}}`)
	}))
	r := runIn(t, env, nil, "vm", "stats", "web")
	if r.exit != 0 || !strings.Contains(r.out, "latency 250µs, worst 700µs, 5 limited") {
		t.Errorf("%+v", r)
	}
}
