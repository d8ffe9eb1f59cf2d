package netboot

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

func TestFind(t *testing.T) {
	set := mustParse(t, rack)
	if set.Len() != 5 {
		t.Errorf("%d machines", set.Len())
	}
	id := func(n byte, serial, uuid string) Identity {
		return Identity{MAC: node(n), Serial: serialOf(serial), UUID: uuidOf(uuid)}
	}
	const known = "00112233-4455-6677-8899-aabbccddeeff"
	for _, c := range []struct {
		name         string
		id           Identity
		config, line string
	}{
		{"MAC", id(1, "", ""), "node-1", "quantavirt.ntp=off"},
		{"second MAC", id(0x12, "", ""), "node-2", "quantavirt.debug"},
		{"serial", id(99, " ABC 123 ", ""), "node-2", "quantavirt.debug"},
		{"serial only", Identity{Serial: "XYZ-9"}, "by-serial", "quantavirt.ntp=off"},
		{"UUID", id(99, "", known), "by-uuid", "quantavirt.ntp=off"},
		{"MAC before serial before UUID", id(1, "XYZ-9", known), "node-1", "quantavirt.ntp=off"},
		{"serial before UUID", id(99, "XYZ-9", known), "by-serial", "quantavirt.ntp=off"},
		{"known, without a configuration", id(5, "", ""), "anybody", "quantavirt.ntp=off"},
		{"unknown", id(99, "nobody", ""), "anybody", "quantavirt.ntp=off"},
		{"serial number that says nothing", id(99, "Default string", ""), "anybody", "quantavirt.ntp=off"},
	} {
		e, ok := set.Find(c.id)
		if !ok {
			e = set.Default()
		}
		if got := string(set.config(e)); !strings.Contains(got, `"`+c.config+`"`) {
			t.Errorf("%s: configuration %s, want that of %s", c.name, got, c.config)
		}
		if got := set.words(e); got != c.line {
			t.Errorf("%s: command line %q, want %q", c.name, got, c.line)
		}
	}
	if (&Set{}).Default() != nil || (&Set{}).config(nil) != nil {
		t.Error("an empty set has a configuration")
	}
}

func TestParseRefuses(t *testing.T) {
	for _, c := range []struct{ name, text, says string }{
		{"not YAML", "machines: [", "neither YAML nor JSON"},
		{"unknown key", "machins: []", `unknown field "machins"`},
		{"key twice", "machines: []\nmachines: []", "already"},
		{"no identity", "machines: [{name: a}]", "nothing tells which machine it is"},
		{"bad MAC", "machines: [{mac: 52:54}]", "machine 1"},
		{"group MAC", `machines: [{mac: "01:00:00:00:00:01"}]`, "group address"},
		{"MAC twice", `machines: [{mac: "52:54:00:71:76:01"}, {name: b, mac: "52:54:00:71:76:01"}]`, `machine 2 ("b"): mac:52:54:00:71:76:01 is there twice`},
		{"serial twice", "machines: [{serial: A1}, {serial: A1}]", "is there twice"},
		{"serial of many", "machines: [{serial: To be filled by O.E.M.}]", "tells no machine from another"},
		{"zeros as serial", `machines: [{serial: "0000"}]`, "tells no machine from another"},
		{"bad UUID", "machines: [{uuid: x1234}]", "UUID"},
		{"UUID of many", "machines: [{uuid: ffffffff-ffff-ffff-ffff-ffffffffffff}]", "tells no machine from another"},
		{"bad name", `machines: [{name: "a b", serial: A1}]`, "not a host name"},
		{"bad address", `machines: [{mac: "52:54:00:71:76:01", address: 10.0.0}]`, "10.0.0"},
		{"address for a serial", "machines: [{serial: A1, address: 10.0.0.5}]", "MAC address"},
		{"command line of two lines", `machines: [{serial: A1, cmdline: "a\nb"}]`, "control character"},
		{"configuration is a text", "machines: [{serial: A1, config: text}]", "not an object"},
		{"configuration with a wrong key", "machines: [{serial: A1, config: {hostnam: x}}]", "hostnam"},
		{"configuration with a wrong value", "machines: [{serial: A1, config: {hostname: -x}}]", "hostname"},
		{"token in clear", "machines: [{serial: A1, config: {hostname: qv_" + strings.Repeat("a", 43) + "}}]", "in clear"},
		{"token in the command line", "machines: [{serial: A1, cmdline: x=qv_" + strings.Repeat("a", 43) + "}]", "in clear"},
		{"default with a MAC", `default: {mac: "52:54:00:71:76:01"}`, "no machine in particular"},
		{"default that is wrong", "default: {config: {hostname: 7}}", "default: "},
	} {
		_, err := Parse([]byte(c.text))
		if qverr.CodeOf(err) != qverr.Config || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %q", c.name, err, c.says)
		}
	}
}

func TestLoadDirectory(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	write("default.yaml", "hostname: anybody")
	write("mac-52-54-00-71-76-01.json", `{"hostname":"node-1"}`)
	write("serial-A-1.yml", "hostname: by-serial")
	write("uuid-00112233-4455-6677-8899-aabbccddeeff.json", `{"hostname":"by-uuid"}`)
	write(".mac-52-54-00-71-76-01.json.swp", "what an editor leaves")
	set, err := Load(dir)
	if err != nil {
		t.Fatal(err)
	}
	for want, id := range map[string]Identity{
		"node-1":    {MAC: node(1)},
		"by-serial": {MAC: node(9), Serial: "A-1"},
		"by-uuid":   {UUID: uuidOf("00112233-4455-6677-8899-aabbccddeeff")},
	} {
		if e, ok := set.Find(id); !ok || !strings.Contains(string(set.config(e)), `"`+want+`"`) {
			t.Errorf("%s: %v", want, e)
		}
	}
	if set.Default() == nil || set.Len() != 3 {
		t.Errorf("default %v, %d machines", set.Default(), set.Len())
	}
	for name, says := range map[string]string{
		"readme.txt":                 "ends in .json or .yaml",
		"node-1.json":                "the name tells no machine",
		"mac-52-54.json":             "52-54",
		"default-2.json":             "a second default",
		"mac-52-54-00-71-76-01.yaml": "is there twice",
		"serial-B.json":              "hostnam",
	} {
		write(name, `{"hostnam":"x"}`)
		if strings.HasSuffix(name, "01.yaml") {
			write(name, "hostname: x")
		}
		_, err := Load(dir)
		if qverr.CodeOf(err) != qverr.Config || !strings.Contains(err.Error(), says) || !strings.Contains(err.Error(), name) {
			t.Errorf("%s: %v, want %q", name, err, says)
		}
		if err := os.Remove(filepath.Join(dir, name)); err != nil {
			t.Fatal(err)
		}
	}
	if _, err := Load(filepath.Join(dir, "nothing")); qverr.CodeOf(err) != qverr.Config {
		t.Errorf("nothing there: %v", err)
	}
}
