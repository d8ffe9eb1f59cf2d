package tpm

import (
	"fmt"
	"strings"
	"unicode"
	"unicode/utf16"
)

// EventType is the kind of an event: PC Client Platform Firmware Profile
// Specification 1.06, tables 27 and 28.
type EventType uint32

const (
	evNoAction    EventType = 0x3
	evSeparator   EventType = 0x4
	evEventTag    EventType = 0x6
	evCRTMVersion EventType = 0x8
	evIPL         EventType = 0xD

	evEFIVariableDriver    EventType = 0x80000001
	evEFIVariableBoot      EventType = 0x80000002
	evEFIApplication       EventType = 0x80000003
	evEFIBootDriver        EventType = 0x80000004
	evEFIRuntimeDriver     EventType = 0x80000005
	evEFIVariableBoot2     EventType = 0x8000000C
	evEFIVariableAuthority EventType = 0x800000E0
)

var typeNames = map[EventType]string{
	0x0: "EV_PREBOOT_CERT", 0x1: "EV_POST_CODE", evNoAction: "EV_NO_ACTION", evSeparator: "EV_SEPARATOR", 0x5: "EV_ACTION",
	evEventTag: "EV_EVENT_TAG", 0x7: "EV_S_CRTM_CONTENTS", evCRTMVersion: "EV_S_CRTM_VERSION", 0x9: "EV_CPU_MICROCODE",
	0xA: "EV_PLATFORM_CONFIG_FLAGS", 0xB: "EV_TABLE_OF_DEVICES", 0xC: "EV_COMPACT_HASH", evIPL: "EV_IPL",
	0xE: "EV_IPL_PARTITION_DATA", 0xF: "EV_NONHOST_CODE", 0x10: "EV_NONHOST_CONFIG", 0x11: "EV_NONHOST_INFO",
	0x12: "EV_OMIT_BOOT_DEVICE_EVENTS", 0x13: "EV_POST_CODE2",
	evEFIVariableDriver: "EV_EFI_VARIABLE_DRIVER_CONFIG", evEFIVariableBoot: "EV_EFI_VARIABLE_BOOT",
	evEFIApplication: "EV_EFI_BOOT_SERVICES_APPLICATION", evEFIBootDriver: "EV_EFI_BOOT_SERVICES_DRIVER",
	evEFIRuntimeDriver: "EV_EFI_RUNTIME_SERVICES_DRIVER", 0x80000006: "EV_EFI_GPT_EVENT", 0x80000007: "EV_EFI_ACTION",
	0x80000008: "EV_EFI_PLATFORM_FIRMWARE_BLOB", 0x80000009: "EV_EFI_HANDOFF_TABLES", 0x8000000A: "EV_EFI_PLATFORM_FIRMWARE_BLOB2",
	0x8000000B: "EV_EFI_HANDOFF_TABLES2", evEFIVariableBoot2: "EV_EFI_VARIABLE_BOOT2", 0x8000000D: "EV_EFI_GPT_EVENT2",
	0x80000010: "EV_EFI_HCRTM_EVENT", evEFIVariableAuthority: "EV_EFI_VARIABLE_AUTHORITY",
}

func (t EventType) String() string {
	if name, ok := typeNames[t]; ok {
		return name
	}
	return fmt.Sprintf("%#x", uint32(t))
}

// MarshalText implements encoding.TextMarshaler.
func (t EventType) MarshalText() ([]byte, error) { return []byte(t.String()), nil }

// maxDescription is how many characters Description returns at most.
const maxDescription = 120

// Description says in a few printable characters what was measured, as far as
// the log tells. It is not covered by the digest of every type of event: believe
// the digests.
func (e Event) Description() string {
	text := e.describe()
	if runes := []rune(text); len(runes) > maxDescription {
		text = string(runes[:maxDescription-1]) + "…"
	}
	return text
}

func (e Event) describe() string {
	switch e.Type {
	case evSeparator:
		if len(e.Data) == 4 && (e.Data[0] == 0 || e.Data[0] == 0xFF) {
			return "end of this register's part"
		}
		return "an error of the firmware"
	case evCRTMVersion:
		return "firmware version " + wide(e.Data)
	case evEFIVariableDriver, evEFIVariableBoot, evEFIVariableBoot2, evEFIVariableAuthority:
		return e.variable()
	case evEFIApplication, evEFIBootDriver, evEFIRuntimeDriver:
		return e.image()
	case evEventTag:
		r := reader{rest: e.Data}
		tag := r.u32()
		return fmt.Sprintf("tag %#x %s", tag, text(r.bytes(uint64(r.u32()))))
	}
	return text(e.Data)
}

// variable describes a UEFI_VARIABLE_DATA (section 10.2.6).
func (e Event) variable() string {
	r := reader{rest: e.Data}
	r.bytes(16) // GUID of the vendor
	nameLen, dataLen := r.u64(), r.u64()
	if nameLen > 1<<10 {
		return fmt.Sprintf("%d bytes", len(e.Data))
	}
	name := wide(r.bytes(2 * nameLen))
	data := r.bytes(dataLen)
	switch {
	case r.short || name == "":
		return fmt.Sprintf("%d bytes", len(e.Data))
	case len(data) == 1:
		return fmt.Sprintf("%s = %d", name, data[0])
	case strings.HasPrefix(name, "Boot0") && len(data) > 6:
		return name + " " + wide(data[6:]) // EFI_LOAD_OPTION: attributes, length of the paths, title
	}
	return fmt.Sprintf("%s, %d bytes", name, len(data))
}

// Kinds of the nodes of a device path: UEFI specification 2.10, section 10.3.
const (
	pathMedia    = 4
	pathFile     = 4
	pathVendorFv = 6 // a file in the firmware
)

// image describes a UEFI_IMAGE_LOAD_EVENT (section 10.2.3): the file of its
// device path.
func (e Event) image() string {
	r := reader{rest: e.Data}
	r.u64() // address
	size := r.u64()
	r.u64() // address it was linked for
	path := reader{rest: r.bytes(r.u64())}
	var file, from string
	for len(path.rest) >= 4 {
		head := path.bytes(4)
		length := uint64(head[2]) | uint64(head[3])<<8
		if length < 4 {
			break
		}
		node := path.bytes(length - 4)
		if head[0] != pathMedia {
			continue
		}
		switch head[1] {
		case pathFile:
			file += wide(node)
		case pathVendorFv:
			from = "part of the firmware"
		}
	}
	switch {
	case file != "":
		return file
	case from != "":
		return from
	}
	return fmt.Sprintf("program of %d bytes", size)
}

// wide is text in UTF-16 up to a NUL.
func wide(b []byte) string {
	var units []uint16
	for ; len(b) >= 2; b = b[2:] {
		u := uint16(b[0]) | uint16(b[1])<<8
		if u == 0 {
			break
		}
		units = append(units, u)
	}
	return printable(string(utf16.Decode(units)))
}

// text is what data that should be text say: some write ASCII, some UTF-16.
func text(b []byte) string {
	if len(b) >= 2 && b[0] != 0 && b[1] == 0 {
		return wide(b)
	}
	s := strings.TrimRight(string(b), "\x00")
	for _, c := range s {
		if !unicode.IsPrint(c) || c == unicode.ReplacementChar {
			return fmt.Sprintf("%d bytes", len(b))
		}
	}
	return s
}

func printable(s string) string {
	return strings.Map(func(c rune) rune {
		if unicode.IsPrint(c) {
			return c
		}
		return '.'
	}, s)
}
