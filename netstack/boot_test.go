package netstack

import (
	"os"
	"path/filepath"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/nstest"
)

// TestBootFiles: a guest gets from the node what its network names, and nothing else.
func TestBootFiles(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	busybox := nstest.Need(t, "busybox")
	world(t)
	files, got := t.TempDir(), t.TempDir()
	for _, name := range []string{"start", "more", "secret"} {
		if err := os.WriteFile(filepath.Join(files, name), []byte("content of "+name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	n := newNode(t, nil, t.TempDir())
	n.opts.BootFile = func(name string) (*os.File, error) { return os.Open(filepath.Join(files, name)) }
	n.state.Networks[1].Boot = &Boot{File: "start", Files: []string{"more", "absent"}}
	n.up(t)
	lab, other := guest(t, "a", "qvb0a1b2c3d"), guest(t, "b", "qvbr0")
	configure(t, lab)
	configure(t, other)
	fetch := func(g *nstest.NS, server, name string) error {
		local := filepath.Join(got, name)
		_ = os.Remove(local)
		if _, err := g.Try(busybox, "tftp", "-g", "-r", name, "-l", local, server); err != nil {
			return err
		}
		data, err := os.ReadFile(local)
		if err == nil && string(data) != "content of "+name {
			t.Errorf("%s: %q", name, data)
		}
		return err
	}
	check := func(when string, g *nstest.NS, server, name string, want bool) {
		t.Helper()
		if err := fetch(g, server, name); (err == nil) != want {
			t.Errorf("%s: %s: %v", when, name, err)
		}
	}
	check("first file", lab, "10.77.0.1", "start", true)
	check("further file", lab, "10.77.0.1", "more", true)
	check("not named", lab, "10.77.0.1", "secret", false)
	check("named, but not there", lab, "10.77.0.1", "absent", false)
	check("from another network", other, gateway, "start", false)
	n.state.Networks[1].Boot = &Boot{File: "start", Files: []string{"secret"}}
	n.apply(t)
	check("changed", lab, "10.77.0.1", "secret", true)
	check("changed", lab, "10.77.0.1", "more", false)
	n.state.Networks[1].Boot = nil
	n.apply(t)
	if n.nets[n.state.Networks[1].ID].tftp != nil {
		t.Error("the TFTP server still runs")
	}
}

// TestBootFileIsTold: who boots from the network learns what and where.
func TestBootFileIsTold(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	world(t)
	n := newNode(t, nil, t.TempDir())
	n.state.Networks[1].Boot = &Boot{File: "http://10.77.0.9/boot.ipxe"}
	n.up(t)
	answer := request(t, guest(t, "a", "qvb0a1b2c3d"))
	if answer.BootFileName != "" || answer.Options.Has(dhcpv4.OptionBootfileName) {
		t.Errorf("a guest that does not boot is told %q", answer.BootFileName)
	}
	if n.nets[n.state.Networks[1].ID].tftp != nil {
		t.Error("the node serves files although they come from elsewhere")
	}
}

func TestBootCheck(t *testing.T) {
	lab := Network{Name: "lab", ID: "x", Subnet: DefaultNetwork().Subnet, DHCP: true}
	for _, c := range []struct {
		name string
		boot Boot
		dhcp bool
		code qverr.Code
	}{
		{"file", Boot{File: "k", Files: []string{"i"}}, true, 0},
		{"URL", Boot{File: "http://a/b"}, true, 0},
		{"no DHCP", Boot{File: "k"}, false, qverr.NetCreate},
		{"no file", Boot{Files: []string{"i"}}, true, qverr.NetCreate},
		{"files of a URL", Boot{File: "http://a/b", Files: []string{"i"}}, true, qverr.NetCreate},
		{"too many", Boot{File: "k", Files: make([]string, maxBootFiles+1)}, true, qverr.NetCreate},
		{"space", Boot{File: "a b"}, true, qverr.NetCreate},
	} {
		net := lab
		net.Boot, net.DHCP = &c.boot, c.dhcp
		err := State{Networks: []Network{net}}.Check()
		if (err != nil) != (c.code != 0) || err != nil && qverr.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
	}
}
