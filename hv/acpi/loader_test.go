package acpi

import (
	"bytes"
	"encoding/binary"
	"testing"
)

// place does what firmware does with a script: the RSDP goes to addr, the tables to
// the next multiple of their alignment.
func place(t *testing.T, s Script, addr uint64) []byte {
	t.Helper()
	le := binary.LittleEndian
	base := map[string]int{}
	var memory []byte
	name := func(b []byte) string {
		n, _, _ := bytes.Cut(b[:loaderNameSize], []byte{0})
		return string(n)
	}
	content := map[string][]byte{FileRSDP: s.RSDP, FileTables: s.Tables}
	for script := s.Loader; len(script) > 0; script = script[loaderEntrySize:] {
		file := name(script[4:])
		from, placed := base[file]
		switch command := le.Uint32(script); {
		case command == loaderAllocate && !placed && content[file] != nil:
			align := int(le.Uint32(script[60:]))
			for len(memory)%align != 0 {
				memory = append(memory, 0)
			}
			base[file] = len(memory)
			memory = append(memory, content[file]...)
		case command == loaderAddPointer && placed:
			off, to := from+int(le.Uint32(script[116:])), addr+uint64(base[name(script[60:])])
			switch script[120] {
			case 4:
				le.PutUint32(memory[off:], le.Uint32(memory[off:])+uint32(to))
			case 8:
				le.PutUint64(memory[off:], le.Uint64(memory[off:])+to)
			default:
				t.Fatalf("a pointer of %d bytes", script[120])
			}
		case command == loaderAddChecksum && placed:
			off, start, n := from+int(le.Uint32(script[60:])), from+int(le.Uint32(script[64:])), int(le.Uint32(script[68:]))
			memory[off] += checksum(memory[start : start+n])
		default:
			t.Fatalf("command %d on %q", command, file)
		}
	}
	return memory
}

// What firmware makes of the script is what Build makes for that address.
func TestForFirmware(t *testing.T) {
	for _, c := range []Config{machine(1, 0), machine(8, 512<<30)} {
		s, err := ForFirmware(c)
		if err != nil {
			t.Fatal(err)
		}
		got := place(t, s, at)
		walk(t, got)
		want, err := Build(c, at+tableAlign)
		if err != nil {
			t.Fatal(err)
		}
		if !bytes.Equal(got[:rsdpSize], want[:rsdpSize]) || !bytes.Equal(got[tableAlign+tableAlign:], want[tableAlign:]) {
			t.Errorf("%d CPUs: placed by the script:\n% x\nbuilt there:\n% x", len(c.APICIDs), got, want)
		}
	}
	if _, err := ForFirmware(machine(0, 0)); err == nil {
		t.Error("no CPUs are fine")
	}
}
