package netboot

import (
	"net/netip"
	"net/url"
	"strings"

	"github.com/google/uuid"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"quantavirt/internal/configdhcp"
)

// UEFI says what firmware of the UEFI kind is given.
type UEFI string

// What UEFI machines boot. The unified kernel image is what Secure Boot and
// measured boot need; with iPXE a machine has a command line of its own.
const (
	UEFIAuto UEFI = "auto" // iPXE by PXE, the unified kernel image by HTTP boot
	UEFIIPXE UEFI = "ipxe"
	UEFIUKI  UEFI = "uki"
)

// Files of the tree.
const (
	fileKernel    = "vmlinuz"
	fileMicrocode = "microcode.cpio"
	fileUKI       = "quantavirt.efi"
	fileBIOS      = "undionly.kpxe"
	pathScript    = "boot.ipxe"
)

// Options of PXE 2.1 within option 43: the boot server is the one that
// answers, and the file is in the answer. UEFI firmware is not given it; it
// then asks at port 4011, which all of it is seen to do right.
const (
	pxeDiscovery       = 6
	pxeDiscoveryBypass = 8
)

// optIPXE holds the options of iPXE itself.
const optIPXE dhcpv4.GenericOptionCode = 175

// ipxeNoPXEDHCP, within it: do not wait for a ProxyDHCP server.
const ipxeNoPXEDHCP = 176

// file is what a client boots: a name for TFTP, or an address for HTTP. It is
// empty when there is nothing for it.
func (b *booter) file(c client) string {
	switch c.program {
	case programIPXE:
		if c.arch == iana.INTEL_X86PC || x64(c.arch) {
			return b.url(pathScript)
		}
	case programPXE:
		switch {
		case c.arch == iana.INTEL_X86PC:
			return b.tree.has(fileBIOS)
		case x64(c.arch) && b.uefi == UEFIUKI:
			return b.tree.has(fileUKI)
		case x64(c.arch):
			return b.tree.ipxeEFI()
		}
	case programHTTP:
		name := ""
		if x64(c.arch) && b.uefi != UEFIIPXE {
			name = b.tree.has(fileUKI)
		}
		if x64(c.arch) && name == "" && b.uefi != UEFIUKI {
			name = b.tree.ipxeEFI()
		}
		if name != "" {
			return b.url(name)
		}
	}
	return ""
}

// url is the address of a path on the HTTP server.
func (b *booter) url(path string) string {
	host := b.address.String()
	if b.port != 80 {
		host = netip.AddrPortFrom(b.address, b.port).String()
	}
	return "http://" + host + "/" + path
}

// configURL is where a machine fetches its configuration. It carries all that
// is known of the machine, so that the server needs no memory of it.
func (b *booter) configURL(id Identity) string {
	q := make(url.Values)
	if id.Serial != "" {
		q.Set("serial", id.Serial)
	}
	if id.UUID != uuid.Nil {
		q.Set("uuid", id.UUID.String())
	}
	u := b.url("config/" + id.MAC.String())
	if len(q) > 0 {
		// A plus sign for a blank is not understood everywhere.
		u += "?" + strings.ReplaceAll(q.Encode(), "+", "%20")
	}
	return u
}

// amend puts what a client boots into an answer: in full mode into one that
// gives an address, in proxy mode into one that gives none.
func (b *booter) amend(c client, file string, resp *dhcpv4.DHCPv4, proxy bool) {
	resp.ServerIPAddr = b.address.AsSlice()
	if id := c.uuidOption; id != nil && proxy {
		resp.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, id)) // PXE 2.1, 2.2.1
	}
	switch c.program {
	case programHTTP:
		resp.UpdateOption(dhcpv4.OptClassIdentifier(classHTTP))
		resp.UpdateOption(dhcpv4.OptBootFileName(file))
		return
	case programPXE, programIPXE:
		resp.BootFileName = file
	}
	switch {
	case proxy:
		resp.UpdateOption(dhcpv4.OptClassIdentifier(classPXE))
		if c.arch == iana.INTEL_X86PC {
			resp.UpdateOption(dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation,
				[]byte{pxeDiscovery, 1, pxeDiscoveryBypass, 255}))
		}
	case c.program == programIPXE:
		resp.UpdateOption(dhcpv4.OptGeneric(optIPXE, []byte{ipxeNoPXEDHCP, 1, 1}))
	}
}

// tellNode answers a node that asks where its configuration is, also that there
// is none: then the node does not ask again. It returns what it says, for the log.
func (b *booter) tellNode(c client, resp *dhcpv4.DHCPv4) (answer string) {
	address, answer := "", "has no configuration"
	if b.hasConfig(c.id) {
		address, answer = b.nodeURL(c.id), "told its configuration"
	}
	for _, o := range configdhcp.Answer(address) {
		resp.UpdateOption(o)
	}
	return answer
}

// nodeURL is configURL as far as it fits into an answer, with the part that finds
// the machine.
func (b *booter) nodeURL(id Identity) string {
	want, _ := b.current().find(id)
	for _, part := range []Identity{id, {MAC: id.MAC, Serial: id.Serial}, {MAC: id.MAC, UUID: id.UUID}} {
		if e, _ := b.current().find(part); e == want && len(b.configURL(part)) <= configdhcp.MaxText {
			return b.configURL(part)
		}
	}
	return b.configURL(Identity{MAC: id.MAC})
}
