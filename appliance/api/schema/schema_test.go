package schema

import (
	"encoding/json"
	"errors"
	"net/url"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func load(t *testing.T) *Set {
	t.Helper()
	s, err := Load(spec.JSON)
	if err != nil {
		t.Fatal(err)
	}
	return s
}

func TestCheck(t *testing.T) {
	s := load(t)
	for _, c := range []struct {
		name, doc, path string
		status          int // 200: it is right
	}{
		{"smallest", `{"name":"a","memory":{"size":"16M"}}`, "", 200},
		{"size as a number", `{"name":"a","memory":{"size":16777216}}`, "", 200},
		{"no name", `{"memory":{"size":"16M"}}`, "name", 422},
		{"no size", `{"name":"a","memory":{}}`, "memory.size", 422},
		{"unknown key", `{"name":"a","memory":{"size":"16M"},"cpuu":{}}`, "cpuu", 422},
		{"unknown key below", `{"name":"a","memory":{"size":"16M"},"storage":[{},{"dsk":"x"}]}`, "storage[1].dsk", 422},
		{"name is a number", `{"name":1,"memory":{"size":"16M"}}`, "name", 400},
		{"null", `{"name":null,"memory":{"size":"16M"}}`, "name", 400},
		{"not an object", `[]`, "", 400},
		{"long name", `{"name":"` + strings.Repeat("x", 4097) + `","memory":{"size":"16M"}}`, "name", 422},
		{"negative memory", `{"name":"a","memory":{"size":-1}}`, "memory.size", 422},
		{"negative memory as text", `{"name":"a","memory":{"size":"-1G"}}`, "memory.size", 422},
		{"memory in other units", `{"name":"a","memory":{"size":"1Q"}}`, "memory.size", 422},
		{"memory is a fraction", `{"name":"a","memory":{"size":1.5}}`, "memory.size", 400},
		{"memory is a list", `{"name":"a","memory":{"size":[]}}`, "memory.size", 400},
		{"no CPU", `{"name":"a","memory":{"size":"16M"},"cpu":{"count":0}}`, "cpu.count", 422},
		{"many CPUs", `{"name":"a","memory":{"size":"16M"},"cpu":{"count":257}}`, "cpu.count", 422},
		{"half a CPU", `{"name":"a","memory":{"size":"16M"},"cpu":{"count":0.5}}`, "cpu.count", 400},
		{"console", `{"name":"a","memory":{"size":"16M"},"console":"vga"}`, "console", 422},
		{"17 NICs", `{"name":"a","memory":{"size":"16M"},"network":[` + strings.Repeat("{},", 16) + `{}]}`, "network", 422},
		{"no pinning", `{"name":"a","memory":{"size":"16M"},"cpu":{"pinning":[[]]}}`, "cpu.pinning[0]", 422},
	} {
		t.Run(c.name, func(t *testing.T) {
			var v any
			if err := json.Unmarshal([]byte(c.doc), &v); err != nil {
				t.Fatal(err)
			}
			err := s.Check("VMConfig", v)
			if got := qverr.HTTPStatus(err); got != c.status {
				t.Fatalf("status %d, want %d: %v", got, c.status, err)
			}
			if err == nil {
				return
			}
			if got := qverr.From(err).Details["path"]; got != c.path || !errors.Is(err, qverr.Config) {
				t.Errorf("path %q, want %q: %v", got, c.path, err)
			}
			if len(err.Error()) > 300 {
				t.Errorf("the message repeats the input: %d bytes", len(err.Error()))
			}
		})
	}
}

func TestCheckQuery(t *testing.T) {
	s := load(t)
	for _, c := range []struct {
		pattern, query string
		ok             bool
	}{
		{"GET /api/v1/vms", "", true},
		{"GET /api/v1/vms", "x=1", false},
		{"POST /api/v1/vms/{name}/start", "wait=10", true},
		{"POST /api/v1/vms/{name}/start", "wait=-1", false},
		{"POST /api/v1/vms/{name}/start", "wait=601", false},
		{"POST /api/v1/vms/{name}/start", "wait=soon", false},
		{"POST /api/v1/vms/{name}/start", "wait=1&wait=2", false},
		{"DELETE /api/v1/vms/{name}", "force=true&wait=1", true},
		{"DELETE /api/v1/vms/{name}", "force=perhaps", false},
		{"POST /api/v1/images", "id=k&kind=kernel", true},
		{"POST /api/v1/images", "id=k&kind=floppy", false},
		{"POST /api/v1/images", "kind=kernel", false},
		{"POST /api/v1/images", "id=a/b&kind=kernel", false},
	} {
		q, err := url.ParseQuery(c.query)
		if err != nil {
			t.Fatal(err)
		}
		err = s.CheckQuery(c.pattern, q)
		if (err == nil) != c.ok || err != nil && qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("%s ? %s: %v", c.pattern, c.query, err)
		}
	}
}
