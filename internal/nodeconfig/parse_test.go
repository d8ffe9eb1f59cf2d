package nodeconfig

import (
	"bytes"
	"fmt"
	"net/netip"
	"os"
	"reflect"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

var whole = `{
  "schema_version": 1, "apply": "always", "hostname": "node7",
  "management": {"mode": "static", "interface": "52:54:00:71:76:01", "address": "10.0.0.7/24", "gateway": "10.0.0.1", "dns": ["10.0.0.2"], "mtu": 9000},
  "tokens": [{"hash": "sha256:` + digest + `", "description": "rack"}, {"hash": "sha256:` + digest + `", "role": "viewer"}],
  "data": {"disk": "serial:S64DNX0R"},
  "install": {"disk": "smallest", "wipe_serial": "X", "source": "http://10.0.0.2/quantavirt.efi", "sha256": "` + digest + `", "then": "poweroff", "encrypt": true},
  "networks": [{"name": "lab", "subnet": "10.9.0.1/24", "nat": false, "mtu": 1400, "dns": ["10.9.0.2"], "domain": "lab.example",
    "boot_file": "start.ipxe", "boot_images": ["linux"]}],
  "images": [{"id": "linux", "kind": "kernel", "url": "https://example.org/vmlinuz"}],
  "disks": [{"name": "empty", "size": "1G"}, {"name": "root", "url": "http://10.0.0.2/root.img", "sha256": "` + digest + `"}],
  "vms": [{"name": "web", "memory": {"size": "192M"}, "autostart": {"enabled": true}}],
  "ntp": ["10.0.0.2", "time.example.org"], "tls": {"policy": "compatible"}
}`

var digest = strings.Repeat("0123456789abcdef", 4)

func TestParseWhole(t *testing.T) {
	got, problems := Parse([]byte(whole))
	if len(problems) > 0 {
		t.Fatal(problems)
	}
	want := Document{
		Apply: Always, Hostname: "node7",
		Management: Management{Mode: Static, Interface: "52:54:00:71:76:01", Address: netip.MustParsePrefix("10.0.0.7/24"),
			Gateway: netip.MustParseAddr("10.0.0.1"), DNS: []netip.Addr{netip.MustParseAddr("10.0.0.2")}, MTU: 9000},
		Tokens:  []Token{{"sha256:" + digest, "rack", "admin"}, {"sha256:" + digest, "", "viewer"}},
		Data:    &Target{Disk: "serial:S64DNX0R"},
		Install: &Install{Target: Target{"smallest", "X", true}, Source: "http://10.0.0.2/quantavirt.efi", SHA256: digest, Then: ThenPowerOff},
		Networks: []Network{{Path: "networks[0]", Name: "lab", Subnet: netip.MustParsePrefix("10.9.0.1/24"), DHCP: true, MTU: 1400,
			DNS: []netip.Addr{netip.MustParseAddr("10.9.0.2")}, Domain: "lab.example", BootFile: "start.ipxe", BootImages: []string{"linux"}}},
		Images: []Image{{Path: "images[0]", ID: "linux", Kind: "kernel", URL: "https://example.org/vmlinuz"}},
		Disks: []Disk{{Path: "disks[0]", Name: "empty", Size: "1G"},
			{Path: "disks[1]", Name: "root", URL: "http://10.0.0.2/root.img", SHA256: digest}},
		VMs: []VM{{Path: "vms[0]", Name: "web", Config: map[string]any{"name": "web", "memory": map[string]any{"size": "192M"}, "autostart": map[string]any{"enabled": true}}}},
		NTP: &[]string{"10.0.0.2", "time.example.org"}, TLSPolicy: "compatible",
	}
	if !reflect.DeepEqual(got, want) {
		t.Errorf("got\n%+v\nwant\n%+v", got, want)
	}
}

// Each wrong part is named by its path and left out; the rest is taken.
func TestParseProblems(t *testing.T) {
	for _, c := range []struct {
		name  string
		doc   string
		paths string // of the problems
		check func(d Document) bool
	}{
		{"empty", `{}`, "", func(d Document) bool { return reflect.DeepEqual(d, Document{Apply: Once}) }},
		{"not JSON", `{"hostname": "a",}`, "", nil},
		{"duplicate key", `{"hostname": "a", "hostname": "b"}`, "", nil},
		{"no object", `[]`, "", nil},
		{"newer schema", `{"schema_version": 2, "hostname": "a"}`, "schema_version", nil},
		{"unknown key", `{"hostnam": "a", "hostname": "b"}`, "hostnam", func(d Document) bool { return d.Hostname == "b" }},
		{"host name", `{"hostname": "a_b", "ntp": []}`, "hostname", func(d Document) bool { return d.Hostname == "" && d.NTP != nil && len(*d.NTP) == 0 }},
		{"type", `{"hostname": 7, "tokens": {}}`, "hostname tokens", nil},
		{"half static", `{"management": {"mode": "static", "gateway": "10.0.0.1"}, "hostname": "a"}`, "management.address",
			func(d Document) bool { return d.Management.Mode == "" && d.Hostname == "a" }},
		{"address with DHCP", `{"management": {"address": "10.0.0.7/24"}}`, "management.address", func(d Document) bool { return d.Management.Mode == "" }},
		{"subnet as address", `{"management": {"mode": "static", "address": "10.0.0.0/24"}}`, "management.address", nil},
		{"IPv6 gateway", `{"management": {"mode": "static", "address": "10.0.0.7/24", "gateway": "fe80::1"}}`, "management.gateway", nil},
		{"MTU", `{"management": {"mtu": 67.5}}`, "management.mtu", func(d Document) bool { return d.Management.Mode == "" }},
		{"one token of two", `{"tokens": [{"hash": "sha256:00"}, {"hash": "sha256:` + digest + `"}]}`, "tokens[0].hash", func(d Document) bool { return len(d.Tokens) == 1 }},
		{"token with its secret", `{"tokens": [{"token": "qv_x"}]}`, "tokens[0].hash tokens[0].token", func(d Document) bool { return d.Tokens == nil }},
		{"install without disk", `{"install": {}}`, "install.disk", func(d Document) bool { return d.Install == nil }},
		{"install, misspelt wipe", `{"install": {"disk": "smallest", "wipe-serial": "x"}}`, "install.wipe-serial", func(d Document) bool { return d.Install == nil }},
		{"install from plain HTTP", `{"install": {"disk": "smallest", "source": "http://a/b"}}`, "install.sha256", func(d Document) bool { return d.Install == nil }},
		{"any disk", `{"data": {"disk": "sda"}}`, "data.disk", func(d Document) bool { return d.Data == nil }},
		{"boot images without a boot file", `{"networks": [{"name": "a", "subnet": "10.1.0.1/16", "boot_images": ["k"]}]}`, "networks[0].boot_file",
			func(d Document) bool { return d.Networks == nil }},
		{"two networks, one good", `{"networks": [{"name": "a"}, {"name": "b", "subnet": "10.1.0.1/16"}]}`, "networks[0].subnet",
			func(d Document) bool { return len(d.Networks) == 1 && d.Networks[0].Name == "b" && d.Networks[0].NAT }},
		{"image", `{"images": [{"id": "..", "kind": "iso", "url": "ftp://a/b"}]}`, "images[0].id images[0].kind images[0].url", func(d Document) bool { return d.Images == nil }},
		{"disk without size and URL", `{"disks": [{"name": "a"}]}`, "disks[0].size", nil},
		{"VM", `{"vms": [{"memory": {}}, 7, {"name": "b"}]}`, "vms[0].name vms[1]", func(d Document) bool { return len(d.VMs) == 1 && d.VMs[0].Path == "vms[2]" }},
		{"time server", `{"ntp": ["a", "b c"]}`, "ntp[1]", func(d Document) bool { return d.NTP == nil }},
		{"TLS", `{"tls": {"policy": "none"}}`, "tls.policy", func(d Document) bool { return d.TLSPolicy == "" }},
		{"long key", `{"` + strings.Repeat("k", 300) + `": 1}`, strings.Repeat("k", 64) + "…", nil},
	} {
		t.Run(c.name, func(t *testing.T) {
			d, problems := Parse([]byte(c.doc))
			var paths []string
			for _, err := range problems {
				path, said := qverr.From(err).Details["path"].(string)
				if qverr.CodeOf(err) != qverr.Config || !said {
					t.Errorf("%v: %v", qverr.CodeOf(err), err)
				}
				paths = append(paths, path)
			}
			if strings.Join(paths, " ") != c.paths {
				t.Errorf("problems at %q: %v", paths, problems)
			}
			if c.name != "empty" && len(problems) == 0 {
				t.Error("nothing was wrong")
			}
			if c.check != nil && !c.check(d) {
				t.Errorf("%+v", d)
			}
		})
	}
	if _, problems := Parse(bytes.Repeat([]byte(" "), MaxSize+1)); len(problems) != 1 {
		t.Error(problems)
	}
	many := `{"tokens": [` + strings.TrimSuffix(strings.Repeat("7,", 60), ",") + `]}`
	if _, problems := Parse([]byte(many)); len(problems) != maxProblems {
		t.Errorf("%d problems", len(problems))
	}
}

// Every key that the code takes is in the page, and the page's example is right.
func TestPageIsComplete(t *testing.T) {
	page, err := os.ReadFile("../../docs/configuration.md")
	if err != nil {
		t.Fatal(err)
	}
	for _, key := range []string{
		"schema_version", "apply", "hostname", "management.mode", "management.interface", "management.address", "management.gateway", "management.dns",
		"management.mtu", "tokens[].hash", "tokens[].description", "tokens[].role", "data.disk", "data.wipe_serial", "data.encrypt", "install.encrypt", "install.disk", "install.wipe_serial",
		"install.source", "install.sha256", "install.then", "networks[].name", "networks[].subnet", "networks[].dhcp", "networks[].nat", "networks[].mtu",
		"networks[].dns", "networks[].domain", "networks[].boot_file", "networks[].boot_server", "networks[].boot_images", "images[].id", "images[].kind", "images[].url", "images[].sha256", "disks[].name", "disks[].size", "disks[].url",
		"disks[].sha256", "vms[]", "ntp[]", "tls.policy",
	} {
		if !strings.Contains(string(page), "`"+key+"`") {
			t.Errorf("docs/configuration.md does not have %s", key)
		}
	}
	_, example, ok := strings.Cut(string(page), "```json\n")
	example, _, _ = strings.Cut(example, "```")
	if doc, problems := Parse([]byte(example)); !ok || len(problems) > 0 || doc.Install == nil || len(doc.VMs) == 0 {
		t.Errorf("the example of docs/configuration.md: %v", problems)
	}
}

func FuzzParse(f *testing.F) {
	f.Add([]byte(whole))
	f.Add([]byte(`{"vms": [{"name": "b"}], "tokens": [1, null], "management": []}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		d, problems := Parse(data)
		for _, err := range problems {
			if qverr.CodeOf(err) != qverr.Config || len(err.Error()) > 4096 {
				t.Errorf("%d bytes: %v", len(err.Error()), err)
			}
		}
		if m := d.Management; m.Mode == Static && !m.Address.IsValid() {
			t.Errorf("static without an address: %s", fmt.Sprintf("%+v", m))
		}
		if d.Install != nil && d.Install.Disk == "" || d.Data != nil && d.Data.Disk == "" {
			t.Error("a target without a disk")
		}
	})
}
