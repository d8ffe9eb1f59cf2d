package vm

import (
	"encoding/json"
	"strings"
	"testing"

	"quantavirt/appliance/api/schema"
	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func testSet(t testing.TB) *schema.Set {
	t.Helper()
	set, err := schema.Load(spec.JSON)
	if err != nil {
		t.Fatal(err)
	}
	return set
}

func tree(t testing.TB, doc string) any {
	t.Helper()
	var v any
	if err := json.Unmarshal([]byte(doc), &v); err != nil {
		t.Fatalf("%v: %s", err, doc)
	}
	return v
}

// with is a right configuration with further members.
func with(members string) string {
	return `{"name":"web","memory":{"size":"128M"},"boot":{"firmware":"direct","kernel":"k"}` + members + `}`
}

func TestParseDefaults(t *testing.T) {
	c, err := Parse(testSet(t), tree(t, with(`,"storage":[{"disk":"d"}],"network":[{}]`)))
	if err != nil {
		t.Fatal(err)
	}
	if c.CPU.Count != 1 || c.CPU.Model != "host" || c.Memory.Size != 128<<20 || c.Console != "virtio-console" || c.Restart != "never" ||
		c.SchemaVersion != "1.0" || len(c.UUID) != 36 || c.UUID[14] != '4' {
		t.Errorf("%+v", c)
	}
	if d := c.Storage[0]; d.Type != "virtio-blk" || d.Queues != 1 || d.Cache != "writeback" {
		t.Errorf("disk %+v", d)
	}
	if n := c.Network[0]; n.Type != "virtio-net" || n.Network != "default" {
		t.Errorf("NIC %+v", n)
	}
	if m := c.Migration; m.MaxDowntimeMs != 300 || m.AutoConverge == nil || !*m.AutoConverge {
		t.Errorf("migration %+v", m)
	}
}

func TestParseNestedForm(t *testing.T) {
	flat, err := Parse(testSet(t), tree(t, with(`,"uuid":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","storage":[{"disk":"d"}],"network":[{}]`)))
	if err != nil {
		t.Fatal(err)
	}
	nested, err := Parse(testSet(t), tree(t, with(`,"uuid":"1b4e28ba-2fa1-41d2-883f-0016d3cca427","devices":{"storage":[{"disk":"d"}],"network":[{}]}`)))
	if err != nil {
		t.Fatal(err)
	}
	a, _ := json.Marshal(flat)
	b, _ := json.Marshal(nested)
	if string(a) != string(b) || strings.Contains(string(b), "devices") {
		t.Errorf("stored forms differ:\n%s\n%s", a, b)
	}
	again, err := Parse(testSet(t), tree(t, string(a)))
	if err != nil {
		t.Fatalf("a stored configuration is not accepted: %v", err)
	}
	if c, _ := json.Marshal(again); string(c) != string(a) {
		t.Errorf("not stable:\n%s\n%s", a, c)
	}
}

func TestParseRefuses(t *testing.T) {
	set := testSet(t)
	for _, c := range []struct {
		name, doc string
		code      qverr.Code
		status    int
		path      string
	}{
		{"unknown key", with(`,"colour":"red"`), qverr.Config, 422, "colour"},
		{"unknown key in devices", with(`,"devices":{"sound":[]}`), qverr.Config, 422, "devices.sound"},
		{"bad member of devices", with(`,"devices":{"storage":[{"dsk":"x"}]}`), qverr.Config, 422, "devices.storage[0].dsk"},
		{"wrong type in devices", with(`,"devices":{"network":{}}`), qverr.Config, 400, "devices.network"},
		{"devices is a list", with(`,"devices":[]`), qverr.Config, 400, "devices"},
		{"both forms", with(`,"storage":[],"devices":{"storage":[]}`), qverr.Config, 422, "devices.storage"},
		{"dot", `{"name":".","memory":{"size":"16M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "name"},
		{"dots", `{"name":"..","memory":{"size":"16M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "name"},
		{"slash", `{"name":"a/b","memory":{"size":"16M"}}`, qverr.Config, 422, "name"},
		{"little memory", `{"name":"a","memory":{"size":"8M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.size"},
		{"odd memory", `{"name":"a","memory":{"size":16777217},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.size"},
		{"huge memory", `{"name":"a","memory":{"size":"9000000T"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.size"},
		{"astronomical memory", `{"name":"a","memory":{"size":1e300},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.size"},
		{"uuid v1", with(`,"uuid":"1b4e28ba-2fa1-11d2-883f-0016d3cca427"`), qverr.Config, 422, "uuid"},
		{"long description", with(`,"description":"` + strings.Repeat("x", 513) + `"`), qverr.Config, 422, "description"},
		{"topology", with(`,"cpu":{"count":4,"topology":{"sockets":1,"cores":2,"threads":1}}`), qverr.Topology, 422, "cpu.topology"},
		{"too many cores", with(`,"cpu":{"count":256,"topology":{"sockets":2,"cores":129,"threads":1}}`), qverr.Config, 422, "cpu.topology.cores"},
		{"machine type", with(`,"machine":"qv-9"`), qverr.Unsupported, 422, "machine"},
		{"CPU flag", with(`,"cpu":{"features":["+warp"]}`), qverr.Config, 422, "cpu.features"},
		{"pins", with(`,"cpu":{"pinning":[[0],[1]]}`), qverr.Config, 422, "cpu.pinning"},
		{"CPU model", with(`,"cpu":{"model":"8086"}`), qverr.Config, 422, "cpu.model"},
		{"huge pages", `{"name":"a","memory":{"size":"17M","hugepages":"2M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.size"},
		{"target without a balloon", `{"name":"a","memory":{"size":"32M","balloon_target":"16M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.balloon_target"},
		{"small target", `{"name":"a","memory":{"size":"32M","balloon":true,"balloon_target":"8M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.balloon_target"},
		{"large target", `{"name":"a","memory":{"size":"32M","balloon":true,"balloon_target":"33M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.balloon_target"},
		{"balloon and huge pages", `{"name":"a","memory":{"size":"32M","balloon":true,"hugepages":"2M"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.balloon"},
		{"balloon and card", `{"name":"a","memory":{"size":"32M","balloon":true},"pqc":{"quac100":"passthrough"},"boot":{"firmware":"direct","kernel":"k"}}`, qverr.Config, 422, "memory.balloon"},
		{"seabios with a kernel", `{"name":"a","memory":{"size":"16M"},"boot":{"kernel":"k"}}`, qverr.Config, 422, "boot.kernel"},
		{"seabios with an initrd", `{"name":"a","memory":{"size":"16M"},"boot":{"firmware":"seabios","initrd":"i"}}`, qverr.Config, 422, "boot.initrd"},
		{"seabios with a command line", `{"name":"a","memory":{"size":"16M"},"boot":{"cmdline":"quiet"}}`, qverr.Config, 422, "boot.cmdline"},
		{"order", `{"name":"a","memory":{"size":"16M"},"boot":{"order":["disk","network","disk"]}}`, qverr.Config, 422, "boot.order"},
		{"CD drive", `{"name":"a","memory":{"size":"16M"},"boot":{"order":["cdrom"]}}`, qverr.Unsupported, 422, "boot.order"},
		{"boot order twice", `{"name":"a","memory":{"size":"16M"},"storage":[{"disk":"d","boot_order":1},{"disk":"e","boot_order":1}]}`, qverr.Config, 422, "storage[1].boot_order"},
		{"ovmf", `{"name":"a","memory":{"size":"16M"},"boot":{"firmware":"ovmf"}}`, qverr.Unsupported, 422, "boot.firmware"},
		{"no kernel", `{"name":"a","memory":{"size":"16M"},"boot":{"firmware":"direct"}}`, qverr.Config, 422, "boot.kernel"},
		{"nvme", with(`,"storage":[{"type":"nvme","disk":"d"}]`), qverr.Unsupported, 422, "storage[0].type"},
		{"disk and path", with(`,"storage":[{"disk":"d","path":"/x"}]`), qverr.Config, 422, "storage[0]"},
		{"neither", with(`,"storage":[{}]`), qverr.Config, 422, "storage[0]"},
		{"one disk twice", with(`,"storage":[{"disk":"d"},{"disk":"d","readonly":true}]`), qverr.Config, 422, "storage[1]"},
		{"65 queues", with(`,"storage":[{"disk":"d","queues":65}]`), qverr.Config, 422, "storage[0].queues"},
		{"group MAC", with(`,"network":[{"mac":"01:00:5e:00:00:01"}]`), qverr.NetMAC, 400, "network[0].mac"},
		{"no MAC", with(`,"network":[{"mac":"hello"}]`), qverr.NetMAC, 400, "network[0].mac"},
		{"MAC twice", with(`,"network":[{"mac":"02:00:00:00:00:01"},{"mac":"02-00-00-00-00-01"}]`), qverr.NetMAC, 400, "network[1].mac"},
		{"port twice", with(`,"console_ports":["a","a"]`), qverr.Config, 422, "console_ports[1]"},
		{"console as port", with(`,"console_ports":["serial"]`), qverr.Config, 422, "console_ports[0]"},
		{"path as port", with(`,"console_ports":["a/b"]`), qverr.Config, 422, "console_ports[0]"},
		{"firewall", with(`,"network":[{"firewall":[{}]}]`), qverr.Unsupported, 422, "network[0].firewall"},
		{"display", with(`,"graphics":{"type":"vnc"}`), qverr.Unsupported, 422, "graphics.type"},
		{"a function twice", with(`,"pci":[{"address":"0000:00:05.0"},{"address":"0000:00:05.0"}]`), qverr.Config, 422, "pci[1].address"},
		{"card", with(`,"memory":{"size":"64M","balloon":true},"pqc":{"quac100":"passthrough"}`), qverr.Config, 422, "memory.balloon"},
		{"SEV-SNP", with(`,"security":{"sev-snp":true}`), qverr.MemEncrypt, 500, "security.sev-snp"},
		{"TDX", with(`,"security":{"tdx":true}`), qverr.MemEncrypt, 500, "security.tdx"},
		{"other version", with(`,"schema_version":"2.0"`), qverr.Version, 500, "schema_version"},
	} {
		t.Run(c.name, func(t *testing.T) {
			_, err := Parse(set, tree(t, c.doc))
			if qverr.CodeOf(err) != c.code || qverr.HTTPStatus(err) != c.status {
				t.Fatalf("code %d, status %d: %v", qverr.CodeOf(err), qverr.HTTPStatus(err), err)
			}
			if got := qverr.From(err).Details["path"]; c.path != "" && got != c.path {
				t.Errorf("path %v, want %s", got, c.path)
			}
		})
	}
}

func TestMergePatch(t *testing.T) {
	target := tree(t, `{"a":{"b":1,"c":2},"d":[1,2],"e":"x"}`)
	got := mergePatch(target, tree(t, `{"a":{"b":null,"f":{"g":null,"h":3}},"d":[3],"e":null}`).(map[string]any))
	data, _ := json.Marshal(got)
	if string(data) != `{"a":{"c":2,"f":{"h":3}},"d":[3]}` {
		t.Errorf("%s", data)
	}
	if data, _ := json.Marshal(target); string(data) != `{"a":{"b":1,"c":2},"d":[1,2],"e":"x"}` {
		t.Errorf("the target was changed: %s", data)
	}
}

func FuzzParse(f *testing.F) {
	set := testSet(f)
	for _, seed := range []string{with(""), with(`,"devices":{"storage":[{"disk":"d"}]}`), `{}`, `[]`, `{"name":"x","memory":{"size":"99999999999999999999T"}}`,
		`{"devices":null}`, with(`,"cpu":{"count":1e300}`)} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var v any
		if json.Unmarshal(data, &v) != nil {
			return
		}
		c, err := Parse(set, v)
		if err != nil {
			if code := qverr.CodeOf(err); code == qverr.Generic {
				t.Fatalf("no code: %v", err)
			}
			return
		}
		out, err := json.Marshal(c)
		if err != nil {
			t.Fatal(err)
		}
		if _, err := Parse(set, tree(t, string(out))); err != nil {
			t.Fatalf("what was accepted is refused in its stored form: %v\n%s", err, out)
		}
	})
}
