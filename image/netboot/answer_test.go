package netboot

import (
	"bytes"
	"net"
	"strings"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"quantavirt/image"
	"quantavirt/internal/configdhcp"
	"quantavirt/netstack/mac"
)

const base = "http://10.0.0.1/"

// TestFile is who boots what, by architecture (RFC 4578 and its successors).
func TestFile(t *testing.T) {
	for _, c := range []struct {
		name string
		uefi UEFI
		mods []dhcpv4.Modifier
		want string
	}{
		{"BIOS", UEFIAuto, firmware(iana.INTEL_X86PC), "undionly.kpxe"},
		{"BIOS, whatever UEFI gets", UEFIUKI, firmware(iana.INTEL_X86PC), "undionly.kpxe"},
		{"BIOS that names no architecture", UEFIAuto, []dhcpv4.Modifier{class("PXEClient")}, "undionly.kpxe"},
		{"UEFI x64", UEFIAuto, firmware(iana.EFI_X86_64), "snponly.efi"},
		{"UEFI x64 as EFI BC", UEFIAuto, firmware(iana.EFI_BC), "snponly.efi"},
		{"UEFI x64, unified kernel image", UEFIUKI, firmware(iana.EFI_X86_64), "quantavirt.efi"},
		{"HTTP boot", UEFIAuto, httpBoot(iana.EFI_X86_64_HTTP), base + "quantavirt.efi"},
		{"HTTP boot, unified kernel image", UEFIUKI, httpBoot(iana.EFI_X86_64_HTTP), base + "quantavirt.efi"},
		{"HTTP boot, iPXE", UEFIIPXE, httpBoot(iana.EFI_X86_64_HTTP), base + "snponly.efi"},
		{"iPXE on BIOS", UEFIAuto, ipxe(iana.INTEL_X86PC), base + "boot.ipxe"},
		{"iPXE on UEFI", UEFIAuto, ipxe(iana.EFI_X86_64), base + "boot.ipxe"},
		{"iPXE on UEFI that came by HTTP boot", UEFIUKI, ipxe(iana.EFI_X86_64_HTTP), base + "boot.ipxe"},
		{"UEFI IA32", UEFIAuto, firmware(iana.EFI_IA32), ""},
		{"UEFI ARM64", UEFIAuto, firmware(iana.EFI_ARM64), ""},
		{"iPXE on ARM64", UEFIAuto, ipxe(iana.EFI_ARM64), ""},
		{"HTTP boot on ARM64", UEFIAuto, httpBoot(iana.EFI_ARM64_HTTP), ""},
		{"no boot client", UEFIAuto, nil, ""},
		{"a node", UEFIAuto, []dhcpv4.Modifier{class(configdhcp.Class)}, ""},
	} {
		b := newBooter(t, func(b *booter) { b.uefi = c.uefi })
		resp := b.respond(ask(t, node(1), dhcpv4.MessageTypeDiscover, c.mods...).ToBytes())
		got := ""
		if resp != nil {
			got = resp.BootFileName + resp.BootFileNameOption()
		}
		if got != c.want {
			t.Errorf("%s: %q, want %q", c.name, got, c.want)
		}
	}
}

// Files that are not there are not offered.
func TestFileMissing(t *testing.T) {
	b := newBooter(t, func(b *booter) {
		tr, err := openTree(files(t, fileKernel, "initramfs"), "")
		if err != nil {
			t.Fatal(err)
		}
		t.Cleanup(tr.close)
		b.tree = tr
	})
	for _, mods := range [][]dhcpv4.Modifier{firmware(iana.INTEL_X86PC), firmware(iana.EFI_X86_64), httpBoot(iana.EFI_X86_64_HTTP)} {
		if resp := b.respond(ask(t, node(1), dhcpv4.MessageTypeDiscover, mods...).ToBytes()); resp != nil {
			t.Errorf("offered %q", resp.BootFileName)
		}
	}
	if resp := b.respond(ask(t, node(1), dhcpv4.MessageTypeDiscover, ipxe(iana.INTEL_X86PC)...).ToBytes()); resp == nil {
		t.Error("iPXE has all that it needs and is not answered")
	}
}

// TestProxyOffer holds the messages against PXE 2.1 and UEFI 24.7.
func TestProxyOffer(t *testing.T) {
	b := newBooter(t, nil)
	id := append([]byte{0}, bytes.Repeat([]byte{7}, 16)...)
	uuid := dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id))
	for _, c := range []struct {
		name, class string
		mods        []dhcpv4.Modifier
		discovery   string // option 43
	}{
		{"BIOS", "PXEClient", firmware(iana.INTEL_X86PC), "\x06\x01\x08\xff"},
		{"UEFI", "PXEClient", firmware(iana.EFI_X86_64), ""},
		{"HTTP boot", "HTTPClient", httpBoot(iana.EFI_X86_64_HTTP), ""},
		{"iPXE", "PXEClient", ipxe(iana.INTEL_X86PC), "\x06\x01\x08\xff"},
	} {
		resp := b.respond(ask(t, node(1), dhcpv4.MessageTypeDiscover, append(c.mods, uuid)...).ToBytes())
		if resp == nil {
			t.Fatalf("%s: silence", c.name)
		}
		got, err := dhcpv4.FromBytes(resp.ToBytes())
		if err != nil {
			t.Fatal(err)
		}
		if got.MessageType() != dhcpv4.MessageTypeOffer || !got.YourIPAddr.IsUnspecified() || got.ClassIdentifier() != c.class ||
			got.ServerIPAddr.String() != "10.0.0.1" || got.ServerIdentifier().String() != "10.0.0.1" ||
			!bytes.Equal(got.Options.Get(dhcpv4.OptionClientMachineIdentifier), id) ||
			string(got.Options.Get(dhcpv4.OptionVendorSpecificInformation)) != c.discovery || got.Options.Has(dhcpv4.OptionIPAddressLeaseTime) {
			t.Errorf("%s: %s", c.name, got.Summary())
		}
		if n := len(got.ToBytes()); n > 576-28 {
			t.Errorf("%s: %d bytes are more than every client takes", c.name, n)
		}
	}
}

// At port 4011 the same is acknowledged to a client that has its address.
func TestBootServer(t *testing.T) {
	b := newBooter(t, nil)
	have := dhcpv4.WithClientIP(net.IPv4(10, 0, 0, 77))
	for _, typ := range []dhcpv4.MessageType{dhcpv4.MessageTypeRequest, dhcpv4.MessageTypeInform} {
		resp := b.respondBoot(ask(t, node(1), typ, append(firmware(iana.EFI_X86_64), have)...).ToBytes())
		if resp == nil || resp.MessageType() != dhcpv4.MessageTypeAck || resp.BootFileName != "snponly.efi" ||
			!resp.YourIPAddr.IsUnspecified() || resp.ClientIPAddr.String() != "10.0.0.77" {
			t.Errorf("%s: %v", typ, resp)
		}
	}
	if resp := b.respondBoot(ask(t, node(1), dhcpv4.MessageTypeDiscover, firmware(iana.EFI_X86_64)...).ToBytes()); resp != nil {
		t.Errorf("a DISCOVER at port 4011: %s", resp.Summary())
	}
	if resp := b.respond(ask(t, node(1), dhcpv4.MessageTypeRequest, firmware(iana.EFI_X86_64)...).ToBytes()); resp != nil {
		t.Errorf("a REQUEST, which is for the other server: %s", resp.Summary())
	}
	if l := b.machines.list(); len(l) != 1 || l[0].Address != "10.0.0.77" || l[0].Name != "node-1" || len(l[0].Events) != 2 {
		t.Errorf("machines: %+v", l)
	}
}

// A node that was booted without a command line asks by DHCPINFORM.
func TestNodeAsks(t *testing.T) {
	b := newBooter(t, nil)
	mods := []dhcpv4.Modifier{class(configdhcp.Class), dhcpv4.WithClientIP(net.IPv4(10, 0, 0, 9)),
		dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, bytes.Repeat([]byte{7}, 16)...)))}
	if got, ok := told(b.respond(ask(t, node(1), dhcpv4.MessageTypeInform, mods...).ToBytes())); !ok ||
		got != base+"config/52:54:00:71:76:01?uuid=07070707-0707-0707-0707-070707070707" {
		t.Errorf("%q %v", got, ok)
	}
	for name, c := range map[string]struct {
		mac    mac.Addr
		serial string
		want   string
	}{
		"by serial number": {node(99), "XYZ-9", base + "config/52:54:00:71:76:63?serial=XYZ-9"},
		"nobody":           {node(99), "Default string", base + "config/52:54:00:71:76:63"},
		"too long":         {node(1), strings.Repeat("ü", 50), base + "config/52:54:00:71:76:01"},
	} {
		var q []dhcpv4.Modifier
		for _, o := range configdhcp.Question(configdhcp.Machine{Serial: c.serial}) {
			q = append(q, dhcpv4.WithOption(o))
		}
		q = append(q, dhcpv4.WithClientIP(net.IPv4(10, 0, 0, 9)))
		if got, ok := told(b.respond(ask(t, c.mac, dhcpv4.MessageTypeInform, q...).ToBytes())); !ok || got != c.want {
			t.Errorf("%s: %q %v", name, got, ok)
		}
	}
	if resp := b.respond(ask(t, node(1), dhcpv4.MessageTypeInform, class(configdhcp.Class)).ToBytes()); resp != nil {
		t.Errorf("without an address: %s", resp.Summary())
	}
	b.set = mustParse(t, `machines: [{mac: "52:54:00:71:76:01"}]`)
	if got, ok := told(b.respond(ask(t, node(1), dhcpv4.MessageTypeInform, mods...).ToBytes())); !ok || got != "" {
		t.Errorf("without a configuration: %q %v", got, ok)
	}
	b.knownOnly = true
	if resp := b.respond(ask(t, node(99), dhcpv4.MessageTypeInform, mods...).ToBytes()); resp != nil {
		t.Errorf("a stranger: %s", resp.Summary())
	}
}

// told is what an answer says to a node.
func told(resp *dhcpv4.DHCPv4) (url string, ok bool) {
	if resp == nil {
		return "", false
	}
	return configdhcp.URL(resp)
}

func TestForged(t *testing.T) {
	b := newBooter(t, nil)
	for _, c := range []struct {
		name string
		mod  dhcpv4.Modifier
	}{
		{"relayed", dhcpv4.WithGatewayIP(net.IPv4(10, 0, 0, 5))},
		{"reply", func(d *dhcpv4.DHCPv4) { d.OpCode = dhcpv4.OpcodeBootReply }},
		{"no hardware address", dhcpv4.WithHwAddr(nil)},
		{"long hardware address", dhcpv4.WithHwAddr(make(net.HardwareAddr, 16))},
		{"multicast hardware address", dhcpv4.WithHwAddr(net.HardwareAddr{1, 2, 3, 4, 5, 6})},
		{"Token Ring", dhcpv4.WithHWType(6)},
		{"an offer", dhcpv4.WithMessageType(dhcpv4.MessageTypeOffer)},
	} {
		req := ask(t, node(1), dhcpv4.MessageTypeDiscover, append(firmware(iana.INTEL_X86PC), c.mod)...)
		if resp := b.respond(req.ToBytes()); resp != nil {
			t.Errorf("%s: %s", c.name, resp.Summary())
		}
	}
}

// With knownOnly strangers get nothing: no offer, no address, no script.
func TestKnownOnly(t *testing.T) {
	b := newBooter(t, func(b *booter) { b.knownOnly = true })
	uuid := func(s string) dhcpv4.Modifier {
		u := uuidOf(s)
		return dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, u[:]...)))
	}
	for _, c := range []struct {
		name string
		mac  mac.Addr
		mods []dhcpv4.Modifier
		want bool
	}{
		{"by MAC", node(1), nil, true},
		{"by the second MAC", node(0x12), nil, true},
		{"by UUID", node(99), []dhcpv4.Modifier{uuid("00112233-4455-6677-8899-aabbccddeeff")}, true},
		{"by UUID as SMBIOS stores it", node(99), []dhcpv4.Modifier{uuid("33221100-5544-7766-8899-aabbccddeeff")}, true},
		{"another UUID", node(99), []dhcpv4.Modifier{uuid("00112233-4455-6677-8899-aabbccddee00")}, false},
		{"a stranger", node(99), nil, false},
	} {
		req := ask(t, c.mac, dhcpv4.MessageTypeDiscover, append(firmware(iana.INTEL_X86PC), c.mods...)...)
		if got := b.respond(req.ToBytes()) != nil; got != c.want {
			t.Errorf("%s: answered %v, want %v", c.name, got, c.want)
		}
		if got := b.Admit(req); got != c.want {
			t.Errorf("%s: admitted %v, want %v", c.name, got, c.want)
		}
	}
}

// In full mode the answer that gives the address says what to boot.
func TestAmend(t *testing.T) {
	b := newBooter(t, nil)
	for _, c := range []struct {
		name, file, class string
		mods              []dhcpv4.Modifier
	}{
		{"BIOS", "undionly.kpxe", "", firmware(iana.INTEL_X86PC)},
		{"HTTP boot", base + "quantavirt.efi", "HTTPClient", httpBoot(iana.EFI_X86_64_HTTP)},
		{"iPXE", base + "boot.ipxe", "", ipxe(iana.INTEL_X86PC)},
		{"no boot client", "", "", nil},
	} {
		req := ask(t, node(1), dhcpv4.MessageTypeDiscover, c.mods...)
		resp, err := dhcpv4.NewReplyFromRequest(req, dhcpv4.WithYourIP(net.IPv4(10, 0, 0, 50)))
		if err != nil {
			t.Fatal(err)
		}
		b.Amend(req, resp)
		if got := resp.BootFileName + resp.BootFileNameOption(); got != c.file || resp.ClassIdentifier() != c.class || resp.YourIPAddr.String() != "10.0.0.50" {
			t.Errorf("%s: file %q, class %q", c.name, got, resp.ClassIdentifier())
		}
		if nowait := resp.Options.Get(optIPXE); (string(nowait) == "\xb0\x01\x01") != (c.name == "iPXE") {
			t.Errorf("%s: option 175 %x", c.name, nowait)
		}
	}
}

// The command line of every medium is written in two places.
func TestCmdline(t *testing.T) {
	if DefaultCmdline != image.Cmdline {
		t.Errorf("%q here, %q in package image", DefaultCmdline, image.Cmdline)
	}
	for _, word := range []string{"panic=10", "console=ttyS0"} {
		if !strings.Contains(DefaultCmdline, word) {
			t.Errorf("no %s", word)
		}
	}
}
