package netboot

import (
	"encoding/json"
	"io"
	"net/http"
	"net/http/httptest"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// page is what a request got.
type page struct {
	status int
	header http.Header
	body   string
}

// site is the HTTP service, asked by a client at an address.
type site struct {
	t *testing.T
	h http.Handler
}

func newSite(t *testing.T, b *booter, updates string) *site {
	t.Helper()
	w := &web{booter: b, admins: []netip.Prefix{netip.MustParsePrefix("10.0.9.0/24")}}
	if updates != "" {
		root, err := os.OpenRoot(updates)
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(func() { root.Close() })
		w.updates = append(w.updates, root)
	}
	return &site{t: t, h: w.handler()}
}

func (s *site) ask(method, target, from string, header ...string) page {
	s.t.Helper()
	r := httptest.NewRequest(method, target, nil)
	r.RemoteAddr = from + ":4711"
	for i := 0; i < len(header); i += 2 {
		r.Header.Set(header[i], header[i+1])
	}
	w := httptest.NewRecorder()
	s.h.ServeHTTP(w, r)
	body, err := io.ReadAll(w.Result().Body)
	if err != nil {
		s.t.Fatal(err)
	}
	return page{status: w.Code, header: w.Result().Header, body: string(body)}
}

func (s *site) get(target string) page {
	s.t.Helper()
	return s.ask(http.MethodGet, target, "10.0.0.50")
}

func TestFiles(t *testing.T) {
	b := newBooter(t, nil)
	s := newSite(t, b, files(t, "node-0.2.qvu", "sub/node-0.3.qvu"))
	const kernel = "content of vmlinuz"
	for _, c := range []struct {
		name, method, target string
		header               []string
		status               int
		body, length, kind   string
	}{
		{"file", "GET", "/vmlinuz", nil, 200, kernel, "18", "application/octet-stream"},
		{"its head", "HEAD", "/vmlinuz", nil, 200, "", "18", "application/octet-stream"},
		{"a part", "GET", "/vmlinuz", []string{"Range", "bytes=8-9"}, 206, "of", "2", "application/octet-stream"},
		{"the end", "GET", "/vmlinuz", []string{"Range", "bytes=-5"}, 206, "linuz", "5", "application/octet-stream"},
		{"beyond the end", "GET", "/vmlinuz", []string{"Range", "bytes=100-"}, 416, "", "", ""},
		{"an EFI program", "GET", "/quantavirt.efi", nil, 200, "content of quantavirt.efi", "25", "application/efi"},
		{"an update", "GET", "/updates/node-0.2.qvu", nil, 200, "content of node-0.2.qvu", "23", "application/octet-stream"},
		{"an update below", "GET", "/updates/sub/node-0.3.qvu", nil, 200, "content of sub/node-0.3.qvu", "27", "application/octet-stream"},
		{"nothing", "GET", "/nothing", nil, 404, "", "", "application/json"},
		{"a folder", "GET", "/updates/sub", nil, 404, "", "", "application/json"},
		{"the folder itself", "GET", "/", nil, 404, "", "", "application/json"},
		{"to write", "PUT", "/vmlinuz", nil, 405, "", "", ""},
		{"to delete", "DELETE", "/vmlinuz", nil, 405, "", "", ""},
	} {
		p := s.ask(c.method, c.target, "10.0.0.50", c.header...)
		if p.status != c.status || c.status < 300 && p.body != c.body ||
			c.length != "" && p.header.Get("Content-Length") != c.length || c.kind != "" && p.header.Get("Content-Type") != c.kind {
			t.Errorf("%s: %d %q %v", c.name, p.status, p.body, p.header)
		}
	}
	if p := newSite(t, b, "").get("/updates/node-0.2.qvu"); p.status != 404 {
		t.Errorf("updates without a directory: %d", p.status)
	}
}

// TestEscape: a name in a request leads to nothing outside of the tree, to
// nothing hidden and to nothing but regular files.
func TestEscape(t *testing.T) {
	dir := files(t, append(imageFiles, ".hidden", ".git/config", "sub/file")...)
	outside := files(t, "secret")
	for link, to := range map[string]string{
		"absolute":  filepath.Join(outside, "secret"),
		"dots":      "../" + filepath.Base(outside) + "/secret",
		"folder":    outside,
		"inside":    "sub/file",
		"endless":   "endless",
		"device":    "/dev/zero",
		"parent":    "..",
		"of-hidden": ".hidden",
	} {
		if err := os.Symlink(to, filepath.Join(dir, link)); err != nil {
			t.Fatal(err)
		}
	}
	if err := unix.Mkfifo(filepath.Join(dir, "fifo"), 0o644); err != nil { // to open it would block
		t.Fatal(err)
	}
	tr, err := openTree(dir, "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.close)
	for _, name := range []string{"", "/", "fifo", ".", "..", "../secret", "/../secret", "sub/../../secret", "sub/../.hidden", "..\\secret", "//vmlinuz",
		"vmlinuz/", "vmlinuz\x00", ".hidden", ".git/config", "sub/.", "absolute", "dots", "folder/secret", "endless", "device", "parent",
		"parent/secret", "sub", "vmlinuz/x", strings.Repeat("a/", 5000) + "x", "/etc/passwd", "\xff\xfe"} {
		if f, _, err := tr.open(name); err == nil {
			t.Errorf("%q opens %s", name, f.Name())
		} else if qverr.CodeOf(err) != qverr.NoEnt {
			t.Errorf("%q: %v", name, err)
		}
	}
	for _, name := range []string{"vmlinuz", "/vmlinuz", "sub/file", "inside"} {
		f, info, err := tr.open(name)
		if err != nil || !info.Mode().IsRegular() {
			t.Errorf("%q: %v", name, err)
			continue
		}
		f.Close()
	}
	b := newBooter(t, func(b *booter) { b.tree = tr })
	s := newSite(t, b, "")
	for _, target := range []string{"/%2e%2e/secret", "/sub/%2e%2e%2f%2e%2e/secret", "/absolute", "/.git/config", "/%2Fetc%2Fpasswd", "/%00"} {
		if p := s.get(target); p.status < 300 || strings.Contains(p.body, "content of") && p.status == 200 {
			t.Errorf("%s: %d %q", target, p.status, p.body)
		}
	}
}

func TestScript(t *testing.T) {
	b := newBooter(t, nil)
	s := newSite(t, b, "")
	first := s.get("/boot.ipxe")
	if want := "#!ipxe\nchain --replace http://10.0.0.1/boot.ipxe?mac=${netX/mac}&serial=${serial:uristring}&uuid=${uuid} || exit 1\n"; first.body != want {
		t.Errorf("first script: %q", first.body)
	}
	const kernel = "kernel http://10.0.0.1/vmlinuz initrd=initramfs.zst console=ttyS0 panic=10 BOOTIF=01-"
	for _, c := range []struct{ name, query, kernel string }{
		{"by MAC", "mac=52:54:00:71:76:01&serial=&uuid=", "quantavirt.ntp=off quantavirt.config=http://10.0.0.1/config/52:54:00:71:76:01"},
		{"by serial", "mac=52:54:00:71:76:99&serial=ABC%20123&uuid=", "quantavirt.debug quantavirt.config=http://10.0.0.1/config/52:54:00:71:76:99?serial=ABC%20123"},
		{"by UUID", "mac=52:54:00:71:76:99&uuid=00112233-4455-6677-8899-aabbccddeeff",
			"quantavirt.ntp=off quantavirt.config=http://10.0.0.1/config/52:54:00:71:76:99?uuid=00112233-4455-6677-8899-aabbccddeeff"},
		{"a line of its own in the serial number", "mac=52:54:00:71:76:99&serial=a%0akernel%20http://evil/", "quantavirt.ntp=off quantavirt.config=http://10.0.0.1/config/52:54:00:71:76:99?serial=a%0Akernel%20http%3A%2F%2Fevil%2F"},
	} {
		p := s.get("/boot.ipxe?" + c.query)
		want := "#!ipxe\necho QuantaVirt for " + c.query[4:21] + "\n" + kernel + strings.ReplaceAll(c.query[4:21], ":", "-") + " " + c.kernel + " || exit 1\ninitrd http://10.0.0.1/initramfs.zst || exit 1\nboot || exit 1\n"
		if p.status != 200 || p.body != want {
			t.Errorf("%s: %d\n%s\nwant\n%s", c.name, p.status, p.body, want)
		}
	}
	for _, query := range []string{"mac=", "mac=x", "mac=ff:ff:ff:ff:ff:ff"} {
		if p := s.get("/boot.ipxe?" + query); p.status != 400 && p.status != 422 {
			t.Errorf("%s: %d %s", query, p.status, p.body)
		}
	}
	b.knownOnly = true
	if p := s.get("/boot.ipxe?mac=52:54:00:71:76:99"); p.status != 403 || !strings.Contains(p.body, "QV_ERR_PERM") {
		t.Errorf("a stranger: %d %s", p.status, p.body)
	}
	b.knownOnly, b.set = false, mustParse(t, "machines: []")
	if p := s.get("/boot.ipxe?mac=52:54:00:71:76:99"); strings.Contains(p.body, "quantavirt.config") || p.status != 200 {
		t.Errorf("without a configuration: %d %s", p.status, p.body)
	}
}

func TestConfig(t *testing.T) {
	b := newBooter(t, nil)
	s := newSite(t, b, "")
	for target, want := range map[string]string{
		"/config/52:54:00:71:76:01":                         "node-1",
		"/config/52-54-00-71-76-12":                         "node-2",
		"/config/ABC%20123":                                 "node-2",
		"/config/XYZ-9":                                     "by-serial",
		"/config/00112233-4455-6677-8899-AABBCCDDEEFF":      "by-uuid",
		"/config/52:54:00:71:76:99?serial=XYZ-9":            "by-serial",
		"/config/52:54:00:71:76:05":                         "anybody",
		"/config/52:54:00:71:76:99":                         "anybody",
		"/config/unheard-of":                                "anybody",
		"/config/52:54:00:71:76:99?serial=Not%20Specified":  "anybody",
		"/config/52:54:00:71:76:99?uuid=not-a-uuid&serial=": "anybody",
	} {
		p := s.get(target)
		var got struct{ Hostname string }
		if err := json.Unmarshal([]byte(p.body), &got); err != nil || got.Hostname != want || p.status != 200 ||
			p.header.Get("Content-Type") != "application/json" || p.header.Get("Cache-Control") != "no-store" {
			t.Errorf("%s: %d %s, want that of %s", target, p.status, p.body, want)
		}
	}
	if p := s.get("/config/0000"); p.status != 400 && p.status != 422 {
		t.Errorf("nobody: %d", p.status)
	}
	b.knownOnly = true
	if p := s.get("/config/unheard-of"); p.status != 403 {
		t.Errorf("a stranger: %d", p.status)
	}
	b.knownOnly, b.set = false, mustParse(t, "machines: []")
	if p := s.get("/config/unheard-of"); p.status != 404 || !strings.Contains(p.body, "QV_ERR_NOENT") {
		t.Errorf("none: %d %s", p.status, p.body)
	}
}

// TestOnce: a machine boots until it has its configuration. Then it goes on to
// its disk until somebody lets it fetch again.
func TestOnce(t *testing.T) {
	b := newBooter(t, func(b *booter) { b.once = true })
	s := newSite(t, b, "")
	const script, config = "/boot.ipxe?mac=52:54:00:71:76:02&serial=ABC%20123", "/config/52:54:00:71:76:02?serial=ABC%20123"
	boots := func() bool { return strings.Contains(s.get(script).body, "vmlinuz") }
	for range 2 {
		if !boots() {
			t.Fatal("a machine that has fetched nothing does not boot")
		}
	}
	if p := s.ask(http.MethodHead, config, "10.0.0.50"); p.status != 200 || !boots() {
		t.Errorf("a look at the head counts: %d", p.status)
	}
	if p := s.get(config); p.status != 200 {
		t.Fatalf("first fetch: %d %s", p.status, p.body)
	}
	for _, again := range []string{config, "/config/52:54:00:71:76:12", "/config/ABC%20123"} {
		if p := s.get(again); p.status != 409 || strings.Contains(p.body, "node-2") {
			t.Errorf("second fetch of %s: %d %s", again, p.status, p.body)
		}
	}
	if p := s.get(script); p.body != exitScript {
		t.Errorf("script after the fetch: %s", p.body)
	}
	if p := s.get("/config/52:54:00:71:76:01"); p.status != 200 {
		t.Errorf("another machine: %d", p.status)
	}
	// It survives a restart.
	again, err := openState(filepath.Dir(b.state.path))
	if err != nil || !again.has([]string{"mac:52:54:00:71:76:02"}) {
		t.Errorf("after a restart: %v", err)
	}
	for _, c := range []struct {
		from   string
		status int
	}{{"10.0.0.50", 403}, {"10.0.0.1", 204}} {
		from, status := c.from, c.status
		if p := s.ask(http.MethodDelete, "/machines/52:54:00:71:76:02", from); p.status != status {
			t.Errorf("from %s: %d %s", from, p.status, p.body)
		}
		if boots() != (status == 204) {
			t.Errorf("from %s: boots %v", from, boots())
		}
		if status == 403 {
			continue
		}
		if p := s.ask(http.MethodDelete, "/machines/52:54:00:71:76:02", from); p.status != 404 {
			t.Errorf("twice: %d", p.status)
		}
	}
}

func TestMachinesPage(t *testing.T) {
	b := newBooter(t, nil)
	s := newSite(t, b, "")
	s.get("/boot.ipxe?mac=52:54:00:71:76:01&serial=S1&uuid=00112233-4455-6677-8899-aabbccddeeff")
	s.get("/vmlinuz")
	s.get("/config/52:54:00:71:76:01")
	for from, status := range map[string]int{"10.0.0.50": 403, "10.0.0.1": 200, "127.0.0.1": 200, "10.0.9.7": 200} {
		if p := s.ask(http.MethodGet, "/machines", from); p.status != status {
			t.Errorf("from %s: %d", from, p.status)
		}
	}
	var got struct {
		Total int
		Items []Machine
	}
	if err := json.Unmarshal([]byte(s.ask(http.MethodGet, "/machines", "10.0.0.1").body), &got); err != nil {
		t.Fatal(err)
	}
	if got.Total != 1 || len(got.Items) != 1 {
		t.Fatalf("%+v", got)
	}
	m := got.Items[0]
	var asked []string
	for _, e := range m.Events {
		asked = append(asked, e.Asked+"="+e.Answer)
		if e.At.IsZero() {
			t.Errorf("%s at no time", e.Asked)
		}
	}
	if m.MAC != "52:54:00:71:76:01" || m.Name != "node-1" || m.Serial != "S1" || m.Address != "10.0.0.50" || !m.Fetched || m.UUID == "" ||
		strings.Join(asked, ", ") != "HTTP boot script=boots vmlinuz, HTTP /vmlinuz=18 bytes, HTTP configuration=sent" {
		t.Errorf("%+v: %s", m, asked)
	}
}

// A flood of invented machines does not make the tables grow.
func TestMachinesBounded(t *testing.T) {
	s := newMachines()
	for i := range 5 * maxMachines {
		a := netip.AddrFrom4([4]byte{10, byte(i >> 16), byte(i >> 8), byte(i)})
		s.record(Identity{}, "", a, "x", "y")
		s.record(Identity{MAC: node(1)}, "", a, "x", "y")
	}
	if len(s.byKey) > maxMachines || len(s.byAddress) > maxMachines+1 {
		t.Errorf("%d machines, %d addresses", len(s.byKey), len(s.byAddress))
	}
	if m := s.byKey[node(1).String()]; m == nil || len(m.Events) != maxEvents {
		t.Errorf("the machine that asks all the time: %+v", m)
	}
}
