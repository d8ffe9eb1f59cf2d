package netboot

import (
	"context"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/insomniacslk/dhcp/iana"

	"quantavirt/internal/configdhcp"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/mac"
	"quantavirt/netstack/nstest"
)

const (
	serverAddress = "10.0.0.1"
	otherServer   = "10.0.0.2" // a DHCP server that knows nothing of booting
)

// lan is a cable from the test's namespace, with the server, to a machine.
func lan(t *testing.T) *nstest.NS {
	t.Helper()
	m := nstest.New(t, "machine")
	nstest.Veth(t, "rack0", m, "eth0", netip.Prefix{})
	nstest.Run(t, "ip", "addr", "add", serverAddress+"/24", "dev", "rack0")
	return m
}

// running is a Server that runs.
type running struct {
	*Server
	log    *syncBuffer
	reload chan os.Signal
	stop   func() error
}

func options(t *testing.T) Options {
	t.Helper()
	return Options{Interface: "rack0", Mode: Full, First: netip.MustParseAddr("10.0.0.100"), Last: netip.MustParseAddr("10.0.0.110"),
		Tree: files(t, imageFiles...), State: filepath.Join(t.TempDir(), "state")}
}

func start(t *testing.T, o Options) *running {
	t.Helper()
	r := &running{log: new(syncBuffer), reload: make(chan os.Signal)}
	o.Log = qvlog.New(io.MultiWriter(r.log, t.Output()), qvlog.Options{}).With(qvlog.KeySubsystem, "netboot")
	var err error
	if r.Server, err = New(o); err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithCancel(t.Context())
	done := make(chan error, 1)
	go func() { done <- r.Run(ctx, r.reload) }()
	ended := false
	r.stop = func() error {
		cancel()
		if ended {
			return nil
		}
		ended = true
		return <-done
	}
	t.Cleanup(func() {
		if err := r.stop(); err != nil {
			t.Error(err)
		}
	})
	return r
}

// get asks the server for a path, as the machine.
func get(t *testing.T, m *nstest.NS, url string) (int, string) {
	t.Helper()
	var status int
	var body []byte
	var err error
	m.Do(func() {
		var conn net.Conn
		if conn, err = net.DialTimeout("tcp", serverAddress+":80", 10*time.Second); err != nil {
			return
		}
		client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true,
			DialContext: func(context.Context, string, string) (net.Conn, error) { return conn, nil }}}
		var resp *http.Response
		if resp, err = client.Get(url); err != nil {
			return
		}
		defer resp.Body.Close()
		status = resp.StatusCode
		body, err = io.ReadAll(resp.Body)
	})
	if err != nil {
		t.Fatalf("%s: %v", url, err)
	}
	return status, string(body)
}

// setMAC gives the machine's card an address of the configuration.
func setMAC(t *testing.T, m *nstest.NS, a mac.Addr) {
	t.Helper()
	m.Run(t, "ip", "link", "set", "eth0", "address", a.String())
}

// udhcpc gets an address with busybox's client and returns what it was told.
func udhcpc(t *testing.T, m *nstest.NS, args ...string) (map[string]string, error) {
	t.Helper()
	busybox := nstest.Need(t, "busybox")
	dir := t.TempDir()
	script := filepath.Join(dir, "script")
	body := "#!/bin/sh\n[ \"$1\" = bound ] || exit 0\nexec env > " + dir + "/lease\n"
	if err := os.WriteFile(script, []byte(body), 0o755); err != nil {
		t.Fatal(err)
	}
	all := append([]string{busybox, "udhcpc", "-i", "eth0", "-f", "-q", "-n", "-t", "4", "-T", "1", "-s", script}, args...)
	if _, err := m.Try(all...); err != nil {
		return nil, err
	}
	b, err := os.ReadFile(filepath.Join(dir, "lease"))
	if err != nil {
		t.Fatal(err)
	}
	told := make(map[string]string)
	for line := range strings.Lines(string(b)) {
		k, v, _ := strings.Cut(strings.TrimSpace(line), "=")
		told[k] = v
	}
	return told, nil
}

// TestFull: busybox's client gets an address from the pool, the address of its
// entry, and what it boots; then all of it over TFTP and HTTP.
func TestFull(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	m := lan(t)
	o := options(t)
	o.Router, o.DNS = netip.MustParseAddr("10.0.0.254"), []netip.Addr{netip.MustParseAddr("192.0.2.53")}
	o.Config = write(t, "machines:\n  - {name: node-1, mac: '52:54:00:71:76:01', address: 10.0.0.11, config: {hostname: node-1}}\n")
	s := start(t, o)

	pxe := []string{"-V", "PXEClient:Arch:00000:UNDI:002001", "-x", "0x5d:0000", "-O", "hostname"}
	told, err := udhcpc(t, m, pxe...)
	if err != nil {
		t.Fatal(err)
	}
	for k, want := range map[string]string{"ip": "10.0.0.100", "mask": "24", "router": "10.0.0.254", "dns": "192.0.2.53",
		"boot_file": "undionly.kpxe", "siaddr": serverAddress, "serverid": serverAddress, "lease": "3600"} {
		if told[k] != want {
			t.Errorf("%s is %q, want %q", k, told[k], want)
		}
	}
	setMAC(t, m, node(1))
	told, err = udhcpc(t, m, pxe...)
	if err != nil || told["ip"] != "10.0.0.11" || told["hostname"] != "node-1" {
		t.Fatalf("the machine with an address of its own: %v %v", told, err)
	}
	if told, err = udhcpc(t, m); err != nil || told["boot_file"] != "" {
		t.Errorf("a client that does not boot: %v %v", told, err)
	}

	m.Run(t, "ip", "addr", "add", "10.0.0.11/24", "dev", "eth0")
	fetched := filepath.Join(t.TempDir(), "undionly.kpxe")
	m.Run(t, nstest.Need(t, "busybox"), "tftp", "-g", "-b", "1400", "-r", "undionly.kpxe", "-l", fetched, serverAddress)
	if data, err := os.ReadFile(fetched); err != nil || string(data) != "content of undionly.kpxe" {
		t.Errorf("by TFTP: %q %v", data, err)
	}
	if status, body := get(t, m, s.URL()+"boot.ipxe?mac=52:54:00:71:76:01"); status != 200 || !strings.Contains(body, "quantavirt.config=http://10.0.0.1/config/52:54:00:71:76:01 ") {
		t.Errorf("script: %d %s", status, body)
	}

	// Leases survive a restart: the next stranger gets another address.
	if err := s.stop(); err != nil {
		t.Fatal(err)
	}
	start(t, o)
	setMAC(t, m, node(9))
	if told, err = udhcpc(t, m); err != nil || told["ip"] != "10.0.0.101" {
		t.Errorf("after a restart: %v %v", told, err)
	}
}

// TestReload: a changed configuration is taken over, a wrong one is not.
func TestReload(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	m := lan(t)
	m.Run(t, "ip", "addr", "add", "10.0.0.11/24", "dev", "eth0")
	o := options(t)
	o.Config = write(t, "machines: []")
	s := start(t, o)
	config := s.URL() + "config/52:54:00:71:76:01"
	for _, c := range []struct{ text, logs, want string }{
		{"machines: [{mac: '52:54:00:71:76:01', config: {hostname: changed}}]", "configuration loaded", "changed"},
		{"machines: [{mac: '52:54:00:71:76:01', config: {hostname: 7}}]", "QV_ERR_CONFIG (-17)", "changed"},
		{"machines: [{mac: '52:54:00:71:76:01', config: {hostname: again}}]", "configuration loaded machines=1", "again"},
	} {
		before := strings.Count(s.log.String(), c.logs)
		if err := os.WriteFile(o.Config, []byte(c.text), 0o644); err != nil {
			t.Fatal(err)
		}
		s.await(t, c.logs, before+1)
		if status, body := get(t, m, config); status != 200 || !strings.Contains(body, c.want) {
			t.Errorf("after %s: %d %s", c.text, status, body)
		}
	}
	before := strings.Count(s.log.String(), "configuration loaded")
	s.reload <- os.Interrupt
	s.await(t, "configuration loaded", before+1)
}

// write makes a configuration file.
func write(t *testing.T, text string) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "rack.yaml")
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
	return path
}

// await waits until the log says something for the nth time.
func (r *running) await(t *testing.T, text string, n int) {
	t.Helper()
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for limit := time.After(20 * time.Second); strings.Count(r.log.String(), text) < n; {
		select {
		case <-tick.C:
		case <-limit:
			t.Fatalf("the log never says %q:\n%s", text, r.log.String())
		}
	}
}

func TestFullKnownOnly(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	m := lan(t)
	o := options(t)
	o.KnownOnly, o.Config = true, files(t)
	if err := os.WriteFile(filepath.Join(o.Config, "mac-52-54-00-71-76-01.json"), []byte(`{"hostname":"node-1"}`), 0o644); err != nil {
		t.Fatal(err)
	}
	start(t, o)
	setMAC(t, m, node(2))
	if told, err := udhcpc(t, m); err == nil {
		t.Errorf("a stranger was told %v", told)
	}
	setMAC(t, m, node(1))
	if told, err := udhcpc(t, m); err != nil || told["ip"] != "10.0.0.100" {
		t.Errorf("a known machine: %v %v", told, err)
	}
}

// TestProxy: a PXE client takes its address from a server that knows nothing of
// booting, and what it boots from ours.
func TestProxy(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	m, other := nstest.New(t, "machine"), nstest.New(t, "other")
	nstest.Run(t, "ip", "link", "add", "rack0", "type", "bridge", "forward_delay", "0")
	nstest.Run(t, "ip", "link", "set", "rack0", "up")
	nstest.Run(t, "ip", "addr", "add", serverAddress+"/24", "dev", "rack0")
	nstest.Veth(t, "m0", m, "eth0", netip.Prefix{})
	nstest.Veth(t, "o0", other, "eth0", netip.MustParsePrefix(otherServer+"/24"))
	for _, port := range []string{"m0", "o0"} {
		nstest.Run(t, "ip", "link", "set", port, "master", "rack0")
	}
	setMAC(t, m, node(1))
	plain(t, other)
	o := options(t)
	o.Mode, o.First, o.Last = Proxy, netip.Addr{}, netip.Addr{}
	o.Config = write(t, rack)
	s := start(t, o)

	for _, c := range []struct {
		name, file string
		mods       []dhcpv4.Modifier
	}{
		{"BIOS", "undionly.kpxe", firmware(iana.INTEL_X86PC)},
		{"UEFI", "snponly.efi", firmware(iana.EFI_X86_64)},
		{"HTTP boot", "http://10.0.0.1/quantavirt.efi", httpBoot(iana.EFI_X86_64_HTTP)},
		{"iPXE", "http://10.0.0.1/boot.ipxe", ipxe(iana.INTEL_X86PC)},
	} {
		boot(t, m, c.name, c.file, c.mods)
	}
	// A node asks where its configuration is.
	req := ask(t, node(1), dhcpv4.MessageTypeInform, class(configdhcp.Class), dhcpv4.WithClientIP(net.IPv4(10, 0, 0, 77)))
	ack := exchange(t, m, req, "10.0.0.255:67")
	if ack == nil || !strings.HasSuffix(string(ack.Options.Get(dhcpv4.OptionVendorSpecificInformation)), "http://10.0.0.1/config/52:54:00:71:76:01") {
		t.Fatalf("INFORM: %v", ack)
	}
	if status, body := get(t, m, s.URL()+"config/52:54:00:71:76:01"); status != 200 || !strings.Contains(body, "node-1") {
		t.Errorf("configuration: %d %s", status, body)
	}
	// One that only wants an address is not our business.
	if gave, boots := discover(t, m, nil); gave == nil || boots != nil {
		t.Errorf("a client that does not boot: %v from us", boots)
	}
}

// boot asks as firmware does: by a DISCOVER, and then, for PXE, at port 4011.
func boot(t *testing.T, m *nstest.NS, name, file string, mods []dhcpv4.Modifier) {
	t.Helper()
	gave, boots := discover(t, m, mods)
	if gave == nil || gave.ServerIdentifier().String() != otherServer || !strings.HasPrefix(gave.YourIPAddr.String(), "10.0.0.2") {
		t.Fatalf("%s: no address from the other server: %v", name, gave)
	}
	if boots == nil || boots.BootFileName+boots.BootFileNameOption() != file || !boots.YourIPAddr.IsUnspecified() {
		t.Fatalf("%s: %v, want %s", name, boots, file)
	}
	if name == "HTTP boot" {
		return
	}
	// What PXE firmware does next: it asks at port 4011, with its address.
	m.Run(t, "ip", "addr", "replace", "10.0.0.77/24", "dev", "eth0")
	req := ask(t, node(1), dhcpv4.MessageTypeRequest, append(mods, dhcpv4.WithClientIP(net.IPv4(10, 0, 0, 77)))...)
	ack := exchange(t, m, req, serverAddress+":4011")
	if ack == nil || ack.MessageType() != dhcpv4.MessageTypeAck || ack.BootFileName != file {
		t.Errorf("%s at port 4011: %v", name, ack)
	}
}

// plain starts the DHCP server that knows nothing of booting.
func plain(t *testing.T, n *nstest.NS) {
	t.Helper()
	var s *dhcp.Server
	var err error
	log := qvlog.New(t.Output(), qvlog.Options{})
	n.Do(func() {
		s, err = dhcp.New(dhcp.Config{Bridge: "eth0", Subnet: netip.MustParsePrefix(otherServer + "/24"),
			First: netip.MustParseAddr("10.0.0.200"), Last: netip.MustParseAddr("10.0.0.250")}, new(dhcp.Memory), log)
		if err == nil {
			err = s.Start()
		}
	})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(s.Close)
}

// discover sends a DISCOVER and returns the offer with an address and that with
// something to boot.
func discover(t *testing.T, m *nstest.NS, mods []dhcpv4.Modifier) (gave, boots *dhcpv4.DHCPv4) {
	t.Helper()
	var client *nclient4.Client
	var err error
	m.Do(func() { client, err = nclient4.New("eth0", nclient4.WithTimeout(time.Second), nclient4.WithRetry(1)) })
	if err != nil {
		t.Fatal(err)
	}
	defer client.Close()
	req := ask(t, node(1), dhcpv4.MessageTypeDiscover, append(mods, dhcpv4.WithBroadcast(true))...)
	// The matcher sees every answer; the time-out ends a wait for one that does
	// not come.
	_, _ = client.SendAndRead(t.Context(), client.RemoteAddr(), req, func(p *dhcpv4.DHCPv4) bool {
		if p.YourIPAddr.IsUnspecified() {
			boots = p
		} else {
			gave = p
		}
		return gave != nil && boots != nil
	})
	return gave, boots
}

// exchange sends a message from port 68 and returns the answer.
func exchange(t *testing.T, m *nstest.NS, req *dhcpv4.DHCPv4, to string) *dhcpv4.DHCPv4 {
	t.Helper()
	var resp *dhcpv4.DHCPv4
	var err error
	m.Do(func() {
		var conn *net.UDPConn
		if conn, err = dhcp.Listen("eth0", dhcpv4.ClientPort); err != nil {
			return
		}
		defer conn.Close()
		if _, err = conn.WriteToUDPAddrPort(req.ToBytes(), netip.MustParseAddrPort(to)); err != nil {
			return
		}
		buf := make([]byte, 2048)
		_ = conn.SetReadDeadline(time.Now().Add(10 * time.Second))
		for {
			n, from, rerr := conn.ReadFromUDPAddrPort(buf)
			if err = rerr; err != nil {
				return
			}
			if from.Addr().String() == serverAddress {
				resp, err = dhcpv4.FromBytes(buf[:n])
				return
			}
		}
	})
	if err != nil {
		t.Errorf("%s: %v", to, err)
	}
	return resp
}

// TestRefused: what cannot be served is said at the start, with its code.
func TestRefused(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	lan(t)
	config := func(text string) func(*Options) { return func(o *Options) { o.Config = write(t, text) } }
	both := func(fs ...func(*Options)) func(*Options) {
		return func(o *Options) {
			for _, f := range fs {
				f(o)
			}
		}
	}
	later := func(o *Options) {
		o.State = files(t)
		if err := os.WriteFile(filepath.Join(o.State, stateName), []byte(`{"version":9}`), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	proxy := func(o *Options) { o.Mode, o.First, o.Last = Proxy, netip.Addr{}, netip.Addr{} }
	knownOnly := func(o *Options) { o.KnownOnly = true }
	for _, c := range []struct {
		name   string
		change func(*Options)
		code   qverr.Code
		says   string
	}{
		{"no interface", func(o *Options) { o.Interface = "" }, qverr.Inval, "interface"},
		{"no such interface", func(o *Options) { o.Interface = "rack9" }, qverr.NoDev, "rack9"},
		{"address of another", func(o *Options) { o.Address = netip.MustParseAddr("10.0.0.9") }, qverr.Inval, "10.0.0.9"},
		{"mode", func(o *Options) { o.Mode = "half" }, qverr.Inval, "half"},
		{"no pool", func(o *Options) { o.First = netip.Addr{} }, qverr.Inval, "gives addresses and has none"},
		{"pool elsewhere", func(o *Options) { o.Last = netip.MustParseAddr("10.0.1.9") }, qverr.NetDHCP, "10.0.1.9"},
		{"pool in proxy mode", func(o *Options) { o.Mode = Proxy }, qverr.Inval, "full mode"},
		{"no image", func(o *Options) { o.Tree = t.TempDir() }, qverr.NoEnt, "vmlinuz"},
		{"no tree", func(o *Options) { o.Tree = "/nonexistent" }, qverr.NoEnt, "/nonexistent"},
		{"no updates", func(o *Options) { o.Updates = "/nonexistent" }, qverr.NoEnt, "updates"},
		{"wrong configuration", config("machines: [{}]"), qverr.Config, "machine 1"},
		{"address in proxy mode", both(proxy, config("machines: [{mac: '52:54:00:71:76:01', address: 10.0.0.5}]")), qverr.Config, "10.0.0.5"},
		{"address elsewhere", config("machines: [{mac: '52:54:00:71:76:01', address: 10.9.0.5}]"), qverr.NetDHCP, "10.9.0.5"},
		{"known only by a serial number", both(knownOnly, config("machines: [{serial: A1}]")), qverr.Config, "serial:A1"},
		{"known only, of none", knownOnly, qverr.Inval, "--known-only"},
		{"once, of none", func(o *Options) { o.Once = true }, qverr.Inval, "--once"},
		{"token instead of its hash", func(o *Options) { o.TokenHash = "qv_x" }, qverr.Inval, "sha256:"},
		{"command line of two lines", func(o *Options) { o.Cmdline = "a\nb" }, qverr.Inval, "control character"},
		{"state of a later version", later, qverr.Version, "version 9"},
	} {
		o := options(t)
		o.Log = qvlog.New(io.Discard, qvlog.Options{})
		c.change(&o)
		if _, err := New(o); qverr.CodeOf(err) != c.code || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: %v, want %s and %q", c.name, err, c.code, c.says)
		}
	}
	// Ports that another has; what was taken before is given back.
	start(t, options(t))
	o := options(t)
	o.Log = qvlog.New(io.Discard, qvlog.Options{})
	if _, err := New(o); qverr.CodeOf(err) != qverr.Busy || !strings.Contains(err.Error(), "port 67") {
		t.Errorf("a second server: %v", err)
	}
}
