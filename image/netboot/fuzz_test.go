package netboot

import (
	"log/slog"
	"net"
	"net/http/httptest"
	"net/url"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"quantavirt/internal/configdhcp"
)

func quiet(b *booter) { b.log = slog.New(slog.DiscardHandler) }

// FuzzDHCP gives hostile bytes to both ports and to the hook of full mode.
func FuzzDHCP(f *testing.F) {
	for _, mods := range [][]dhcpv4.Modifier{firmware(iana.INTEL_X86PC), firmware(iana.EFI_X86_64), httpBoot(iana.EFI_X86_64_HTTP),
		ipxe(iana.INTEL_X86PC), {class(configdhcp.Class), dhcpv4.WithClientIP(net.IPv4(10, 0, 0, 9))}} {
		for _, typ := range []dhcpv4.MessageType{dhcpv4.MessageTypeDiscover, dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform} {
			f.Add(ask(f, node(1), typ, mods...).ToBytes())
		}
	}
	b := newBooter(f, quiet)
	f.Fuzz(func(t *testing.T, data []byte) {
		for _, respond := range []func([]byte) *dhcpv4.DHCPv4{b.respond, b.respondBoot} {
			resp := respond(data)
			if resp == nil {
				continue
			}
			got, err := dhcpv4.FromBytes(resp.ToBytes())
			if err != nil || !got.YourIPAddr.IsUnspecified() || got.OpCode != dhcpv4.OpcodeBootReply {
				t.Fatalf("%v: %v", err, got)
			}
			if len(got.BootFileName+got.BootFileNameOption()) == 0 && got.ClassIdentifier() != configdhcp.Class {
				t.Errorf("an answer that says nothing: %s", got.Summary())
			}
		}
		req, err := dhcpv4.FromBytes(data)
		if err != nil || !b.Admit(req) {
			return
		}
		resp, err := dhcpv4.NewReplyFromRequest(req)
		if err != nil {
			return
		}
		b.Amend(req, resp)
		if _, err := dhcpv4.FromBytes(resp.ToBytes()); err != nil {
			t.Errorf("amended: %v", err)
		}
		if n := len(b.machines.byKey); n > maxMachines {
			t.Errorf("%d machines", n)
		}
	})
}

// FuzzScript: nothing that a client says of itself makes a line or a word of
// its own in a script.
func FuzzScript(f *testing.F) {
	f.Add("52:54:00:71:76:01", "ABC 123", "00112233-4455-6677-8899-aabbccddeeff")
	f.Add("52-54-00-71-76-02", "a\nkernel http://x/", "")
	f.Add("52:54:00:71:76:03", "${x} && echo", "urn:uuid:00112233-4455-6677-8899-aabbccddeeff")
	b := newBooter(f, quiet)
	h := (&web{booter: b}).handler()
	f.Fuzz(func(t *testing.T, mac, serial, uuid string) {
		q := url.Values{"mac": {mac}, "serial": {serial}, "uuid": {uuid}}
		w := httptest.NewRecorder()
		h.ServeHTTP(w, httptest.NewRequest("GET", "/boot.ipxe?"+q.Encode(), nil))
		if w.Code != 200 {
			return
		}
		lines := strings.Split(strings.TrimSuffix(w.Body.String(), "\n"), "\n")
		if len(lines) != 5 {
			t.Fatalf("%d lines: %q", len(lines), lines)
		}
		for i, begin := range []string{"#!ipxe", "echo ", "kernel ", "initrd ", "boot "} {
			if !strings.HasPrefix(lines[i], begin) {
				t.Errorf("line %q does not begin with %q", lines[i], begin)
			}
		}
		if strings.ContainsAny(lines[2], "$\r\x00") || strings.Count(lines[2], "quantavirt.config=") != 1 {
			t.Errorf("line %q", lines[2])
		}
		// The address in it leads to the same machine.
		_, address, _ := strings.Cut(lines[2], "quantavirt.config="+b.url(""))
		address, _, _ = strings.Cut(address, " ")
		c := httptest.NewRecorder()
		h.ServeHTTP(c, httptest.NewRequest("GET", "/"+address, nil))
		if c.Code != 200 {
			t.Errorf("%s: %d %s", address, c.Code, c.Body)
		}
	})
}

// FuzzPath: whatever the path, a request is answered, and never with a file of
// another place.
func FuzzPath(f *testing.F) {
	for _, p := range []string{"vmlinuz", "../x", "config/52:54:00:71:76:01?serial=x", "machines", "updates/../vmlinuz", "%2e%2e/x", ".git/config"} {
		f.Add(p)
	}
	b := newBooter(f, quiet)
	h := (&web{booter: b}).handler()
	f.Fuzz(func(t *testing.T, path string) {
		u, err := url.Parse("/" + path)
		if err != nil || u.Host != "" {
			return
		}
		r := httptest.NewRequest("GET", "/", nil)
		r.URL = u
		w := httptest.NewRecorder()
		h.ServeHTTP(w, r)
		if w.Code == 200 && strings.HasPrefix(w.Body.String(), "content of ") && b.tree.has(strings.TrimPrefix(w.Body.String(), "content of ")) == "" {
			t.Errorf("%q: %q", path, w.Body)
		}
		if w.Code >= 500 {
			t.Errorf("%q: %d %s", path, w.Code, w.Body)
		}
	})
}

// FuzzParse: a configuration that is taken can be searched and handed out.
func FuzzParse(f *testing.F) {
	f.Add([]byte(rack))
	f.Add([]byte(`{"default":{"config":null},"machines":[{"serial":"A1","config":{}}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		set, err := Parse(data)
		if err != nil {
			return
		}
		for _, e := range set.entries {
			for _, m := range e.MACs {
				if found, ok := set.Find(Identity{MAC: m}); !ok || found != e {
					t.Errorf("%s is not found", m)
				}
			}
			if strings.ContainsAny(set.words(e), "\n\r") || aToken.Match(set.config(e)) {
				t.Errorf("%q %s", set.words(e), set.config(e))
			}
		}
	})
}
