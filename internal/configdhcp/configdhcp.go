// Package configdhcp is how a node learns over DHCP where its configuration is,
// if it was booted from the network without a command line that says so.
//
// The node sends a DHCPINFORM (RFC 2131, 3.4 and 4.4.3) of the vendor class Class.
// A server that knows this class answers with the same class, and both sides use
// vendor-specific information (RFC 2132, 8.4): the node tells the serial number of
// its machine, the server an address. The UUID of the machine is in option 97
// (RFC 4578, 2.3).
package configdhcp

import (
	"os"
	"path/filepath"
	"strings"

	"github.com/google/uuid"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

// Class is the vendor class (option 60) of a node and of an answer to it.
const Class = "QuantaVirt"

// Options within option 43.
const (
	optURL    = 1 // answer: address of the configuration, empty if there is none
	optSerial = 2 // question: serial number of SMBIOS, type 1
)

const (
	optPad = 0
	optEnd = 255
)

// MaxText bounds an address and a serial number, in bytes.
const MaxText = 255

// Machine is what a question tells of the node's machine; each part may be
// missing.
type Machine struct {
	Serial string
	UUID   uuid.UUID
}

// ThisMachine reads sysfs, which is normally at /sys.
func ThisMachine(sys string) Machine {
	text := func(name string) string {
		data, _ := os.ReadFile(filepath.Join(sys, "class/dmi/id", name)) // a machine without SMBIOS has none
		return strings.TrimSpace(string(data))
	}
	var m Machine
	if s := text("product_serial"); len(s) <= MaxText {
		m.Serial = s
	}
	m.UUID, _ = uuid.Parse(text("product_uuid"))
	return m
}

// Question are the options of a question.
func Question(m Machine) []dhcpv4.Option {
	opts := []dhcpv4.Option{
		dhcpv4.OptClassIdentifier(Class),
		dhcpv4.OptParameterRequestList(dhcpv4.OptionVendorSpecificInformation),
	}
	if m.Serial != "" && len(m.Serial) <= MaxText {
		opts = append(opts, vendor(optSerial, m.Serial))
	}
	if m.UUID != uuid.Nil {
		opts = append(opts, dhcpv4.OptGeneric(dhcpv4.OptionClientMachineIdentifier, append([]byte{0}, m.UUID[:]...)))
	}
	return opts
}

// Serial is the serial number that a question tells, "" if none.
func Serial(question *dhcpv4.DHCPv4) string {
	s, _ := text(question, optSerial)
	return s
}

// Answer are the options of an answer. url has at most MaxText bytes, and is empty
// if there is no configuration for the node.
func Answer(url string) []dhcpv4.Option {
	return []dhcpv4.Option{dhcpv4.OptClassIdentifier(Class), vendor(optURL, url)}
}

// URL is what an answer says. ok is false for what answers another question.
func URL(answer *dhcpv4.DHCPv4) (url string, ok bool) {
	if answer.ClassIdentifier() != Class {
		return "", false
	}
	return text(answer, optURL)
}

func vendor(code byte, text string) dhcpv4.Option {
	return dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, append([]byte{code, byte(len(text))}, text...))
}

// text finds an option within option 43. Control characters are not text.
func text(m *dhcpv4.DHCPv4, code byte) (string, bool) {
	for b := m.Options.Get(dhcpv4.OptionVendorSpecificInformation); len(b) > 0 && b[0] != optEnd; {
		if b[0] == optPad {
			b = b[1:]
			continue
		}
		if len(b) < 2 || len(b) < 2+int(b[1]) {
			return "", false
		}
		if b[0] == code {
			s := string(b[2 : 2+int(b[1])])
			return s, !strings.ContainsFunc(s, func(r rune) bool { return r < ' ' || r == 0x7f })
		}
		b = b[2+int(b[1]):]
	}
	return "", false
}
