package medium

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io/fs"
	"net"
	"os"
	"path/filepath"
	"strings"
	"unicode/utf16"

	"quantavirt/internal/qverr"
)

// Vendors of variables: the Boot Loader Interface, and the UEFI specification
// itself (EFI_GLOBAL_VARIABLE, 3.3).
const (
	vendor = "-4a67b082-0a4c-41cf-b6c7-440b29bb8c4f"
	global = "-8be4df61-93ca-11d2-aa0d-00e098032b8c"
)

// maxVariable bounds a variable, in bytes.
const maxVariable = 4 << 10

// variable is the text of a variable of the Boot Loader Interface: UTF-16 in
// little endian up to a NUL.
func variable(dir, name string) (string, error) {
	data, err := content(dir, name+vendor)
	if err != nil {
		return "", err
	}
	var units []uint16
	for ; len(data) >= 2; data = data[2:] {
		u := binary.LittleEndian.Uint16(data)
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return string(utf16.Decode(units)), nil
}

// content is that of a variable, behind its four bytes of attributes (UEFI
// specification 2.10, 8.2).
func content(dir, name string) ([]byte, error) {
	f, err := os.Open(filepath.Join(dir, name))
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "firmware variable %s: %w", name, err)
	}
	defer func() { _ = f.Close() }()
	data := make([]byte, maxVariable)
	n, err := f.Read(data)
	if err != nil || n < 4 {
		return nil, qverr.New(qverr.IO, "firmware variable %s: %d bytes: %w", name, n, err)
	}
	return data[4:n], nil
}

// bootedCard is the network card that the firmware booted from, "" if it booted
// from something else or does not say.
func bootedCard(dir string) (string, error) {
	current, err := content(dir, "BootCurrent"+global)
	if errors.Is(err, fs.ErrNotExist) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if len(current) != 2 {
		return "", qverr.New(qverr.IO, "firmware variable BootCurrent: %d bytes instead of 2", len(current))
	}
	option, err := content(dir, fmt.Sprintf("Boot%04X", binary.LittleEndian.Uint16(current))+global)
	if errors.Is(err, fs.ErrNotExist) { // the firmware makes some for one boot only
		return "", nil
	}
	if err != nil {
		return "", err
	}
	return optionCard(option), nil
}

// Nodes of a device path (UEFI specification 2.10, 10.3): type, subtype and the
// length with these four bytes.
const (
	nodeMessaging = 3
	nodeMAC       = 11 // 32 bytes of address, then the type of interface
	nodeEnd       = 0x7f
	ifEthernet    = 1 // RFC 3232
)

// optionCard is the Ethernet card in the device path of a load option
// (EFI_LOAD_OPTION, 3.1.3): attributes of four bytes, length of the path in two,
// a description in UTF-16 up to a NUL, and the path. "" if there is none.
func optionCard(option []byte) string {
	if len(option) < 6 {
		return ""
	}
	length, path := int(binary.LittleEndian.Uint16(option[4:])), option[6:]
	for len(path) >= 2 && binary.LittleEndian.Uint16(path) != 0 {
		path = path[2:]
	}
	if len(path) < 2+length {
		return ""
	}
	for path = path[2 : 2+length]; len(path) >= 4 && path[0] != nodeEnd; {
		size := int(binary.LittleEndian.Uint16(path[2:]))
		if size < 4 || size > len(path) {
			return ""
		}
		if path[0] == nodeMessaging && path[1] == nodeMAC && size == 4+32+1 && path[4+32] <= ifEthernet {
			return net.HardwareAddr(path[4 : 4+6]).String()
		}
		path = path[size:]
	}
	return ""
}

// CardOf reads the value of BOOTIF=: the type of hardware, 01 for Ethernet, and
// the MAC address, in hexadecimal digits with hyphens. "" if it is something else.
func CardOf(bootif string) string {
	rest, ok := strings.CutPrefix(bootif, "01-")
	m, err := net.ParseMAC(rest)
	if !ok || err != nil || len(m) != 6 {
		return ""
	}
	return m.String()
}
