package netboot

import (
	"bytes"
	"strings"

	"github.com/google/uuid"
	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"quantavirt/internal/configdhcp"
	"quantavirt/netstack/mac"
)

// program is what sends a DHCP message.
type program int

const (
	programOther program = iota // boots nothing that we have
	programPXE                  // firmware, network boot
	programHTTP                 // firmware, UEFI HTTP boot
	programIPXE
	programNode // QuantaVirt itself
)

func (p program) String() string {
	return [...]string{"a DHCP client", "PXE", "HTTP boot", "iPXE", "QuantaVirt"}[p]
}

// Vendor classes (option 60) of firmware.
const (
	classPXE  = "PXEClient"
	classHTTP = "HTTPClient"
)

// client is what a DHCP message tells of its sender.
type client struct {
	id      Identity
	program program
	arch    iana.Arch

	uuidOption []byte // option 97 as it came, nil if it did not
}

// identify reads a message. It is false for what is no request of a machine on
// this network: relayed, not Ethernet, or with an address that no card has.
func identify(req *dhcpv4.DHCPv4) (client, bool) {
	var c client
	if req.OpCode != dhcpv4.OpcodeBootRequest || req.HWType != iana.HWTypeEthernet || len(req.ClientHWAddr) != len(c.id.MAC) {
		return client{}, false
	}
	if req.GatewayIPAddr != nil && !req.GatewayIPAddr.IsUnspecified() {
		return client{}, false
	}
	c.id.MAC = mac.Addr(req.ClientHWAddr)
	c.uuidOption = req.Options.Get(dhcpv4.OptionClientMachineIdentifier)
	c.id.UUID = machineUUID(c.uuidOption)
	class := req.ClassIdentifier()
	switch {
	case bytes.Contains(req.Options.Get(dhcpv4.OptionUserClassInformation), []byte("iPXE")):
		c.program = programIPXE
	case strings.HasPrefix(class, classPXE):
		c.program = programPXE
	case strings.HasPrefix(class, classHTTP):
		c.program = programHTTP
	case class == configdhcp.Class:
		c.program, c.id.Serial = programNode, serialOf(configdhcp.Serial(req))
	}
	if archs := req.ClientArch(); len(archs) > 0 {
		c.arch = archs[0]
	}
	return c, c.id.MAC.Check() == nil
}

// machineUUID reads option 97 (RFC 4578, 2.3): type 0 and 16 bytes.
func machineUUID(b []byte) uuid.UUID {
	if len(b) != 17 || b[0] != 0 {
		return uuid.Nil
	}
	u := uuid.UUID(b[1:])
	if u == uuid.Max {
		return uuid.Nil
	}
	return u
}

// x64 tells the UEFI machines that run our kernel. 9 is what RFC 4578 calls
// EFI BC and its erratum x86-64: both are in use.
func x64(a iana.Arch) bool {
	return a == iana.EFI_X86_64 || a == iana.EFI_BC || a == iana.EFI_X86_64_HTTP
}
