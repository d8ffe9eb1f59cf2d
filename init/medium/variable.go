package medium

import (
	"encoding/binary"
	"errors"
	"fmt"
	"net"
	"strings"
	"unicode/utf16"

	"github.com/google/uuid"

	"quantavirt/internal/efivar"
	"quantavirt/internal/qverr"
)

// loaderVendor is that of the Boot Loader Interface's variables.
var loaderVendor = uuid.MustParse("4a67b082-0a4c-41cf-b6c7-440b29bb8c4f")

// variable is the text of a variable of the Boot Loader Interface: UTF-16 in
// little endian up to a NUL.
func variable(dir, name string) (string, error) {
	_, data, err := efivar.Files{Dir: dir, Vendor: loaderVendor}.Get(name)
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

// bootedCard is the network card that the firmware booted from, "" if it booted
// from something else or does not say.
func bootedCard(dir string) (string, error) {
	firmware := efivar.Files{Dir: dir, Vendor: efivar.Global}
	_, current, err := firmware.Get("BootCurrent")
	if errors.Is(err, qverr.NoEnt) {
		return "", nil
	}
	if err != nil {
		return "", err
	}
	if len(current) != 2 {
		return "", qverr.New(qverr.IO, "firmware variable BootCurrent: %d bytes instead of 2", len(current))
	}
	_, data, err := firmware.Get(fmt.Sprintf("Boot%04X", binary.LittleEndian.Uint16(current)))
	if errors.Is(err, qverr.NoEnt) { // the firmware makes some for one boot only
		return "", nil
	}
	if err != nil {
		return "", err
	}
	option, err := efivar.ParseLoadOption(data)
	if err != nil {
		return "", err
	}
	if card, ok := option.Card(); ok {
		return card.String(), nil
	}
	return "", nil
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
