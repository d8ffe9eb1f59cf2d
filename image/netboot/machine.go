package netboot

import (
	"encoding/binary"
	"strings"

	"github.com/google/uuid"

	"quantavirt/netstack/mac"
)

// maxSerial bounds a serial number; SMBIOS has no limit, vendors use 20.
const maxSerial = 128

// Identity is what is known of a machine; each part may be missing.
type Identity struct {
	MAC    mac.Addr
	Serial string
	UUID   uuid.UUID
}

// keys names every known part, for sets of machines.
func (id Identity) keys() []string {
	var keys []string
	if !id.MAC.IsZero() {
		keys = append(keys, macKey(id.MAC))
	}
	if id.Serial != "" {
		keys = append(keys, "serial:"+id.Serial)
	}
	if id.UUID != uuid.Nil {
		keys = append(keys, "uuid:"+id.UUID.String())
	}
	return keys
}

func macKey(m mac.Addr) string { return "mac:" + m.String() }

// noSerial are texts that vendors leave in place of a serial number: they stand
// in many machines at once.
var noSerial = map[string]bool{
	"": true, "0": true, "none": true, "n/a": true, "unknown": true, "not specified": true, "not applicable": true,
	"default string": true, "default": true, "system serial number": true, "chassis serial number": true,
	"to be filled by o.e.m.": true, "to be filled by oem": true, "o.e.m.": true, "oem": true,
	"0123456789": true, "123456789": true, "1234567890": true, "empty": true, "serial": true,
}

// serialOf is a serial number as it is compared: without blanks around it, and
// empty where it says nothing.
func serialOf(s string) string {
	s = strings.TrimSpace(s)
	if len(s) > maxSerial || noSerial[strings.ToLower(s)] || strings.Trim(s, "0") == "" {
		return ""
	}
	return s
}

// uuidOf reads a machine's UUID; those that firmware shows when it has none are
// no UUID.
func uuidOf(s string) uuid.UUID {
	u, err := uuid.Parse(strings.TrimSpace(s))
	if err != nil || u == uuid.Max {
		return uuid.Nil
	}
	return u
}

// swapped is a UUID with the other order of bytes in its first three fields.
// SMBIOS stores them little-endian (DSP0134, 7.2.1), and of the firmware that
// sends option 97 some sends the bytes as stored, some as written.
func swapped(u uuid.UUID) uuid.UUID {
	s := u
	binary.LittleEndian.PutUint32(s[0:], binary.BigEndian.Uint32(u[0:]))
	binary.LittleEndian.PutUint16(s[4:], binary.BigEndian.Uint16(u[4:]))
	binary.LittleEndian.PutUint16(s[6:], binary.BigEndian.Uint16(u[6:]))
	return s
}

// label names a machine in a message.
func (id Identity) label() string {
	keys := id.keys()
	if len(keys) == 0 {
		return "unknown"
	}
	_, value, _ := strings.Cut(keys[0], ":")
	return value
}
