package smbios

import (
	"bytes"
	"encoding/binary"
	"testing"

	"github.com/google/uuid"
)

// parse walks over structures as a reader does: by length and strings.
func parse(t *testing.T, b []byte) map[byte][]byte {
	t.Helper()
	found := map[byte][]byte{}
	for handle := uint16(0); len(b) > 0; handle++ {
		n := int(b[1])
		if n < 4 || n > len(b) || binary.LittleEndian.Uint16(b[2:]) != handle {
			t.Fatalf("structure % x", b)
		}
		end := bytes.Index(b[n:], []byte{0, 0})
		if end < 0 {
			t.Fatalf("no end of the strings of type %d", b[0])
		}
		found[b[0]] = b[:n+end]
		b = b[n+end+2:]
	}
	return found
}

func TestTables(t *testing.T) {
	c := Config{Vendor: "QuantaVirt", Product: "machine", Version: "1", UUID: uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff"), Memory: 5 << 30}
	anchor, tables := Tables(c)
	var sum byte
	for _, v := range anchor {
		sum += v
	}
	if len(anchor) != 24 || sum != 0 || int(binary.LittleEndian.Uint32(anchor[12:])) != len(tables) {
		t.Errorf("anchor % x", anchor)
	}
	found := parse(t, tables)
	for kind, size := range map[byte]int{typeSystem: 27, typeChassis: 22, typeMemoryArray: 23, typeMemoryDevice: 40, typeBootStatus: 11, typeEnd: 4} {
		if s := found[kind]; s == nil || int(s[1]) != size {
			t.Errorf("type %d: % x, want %d bytes", kind, s, size)
		}
	}
	want := []byte{0x33, 0x22, 0x11, 0x00, 0x55, 0x44, 0x77, 0x66, 0x88, 0x99, 0xaa, 0xbb, 0xcc, 0xdd, 0xee, 0xff}
	if s := found[typeSystem]; !bytes.Equal(s[8:24], want) || !bytes.HasSuffix(s, []byte("QuantaVirt\x00machine\x001")) {
		t.Errorf("system % x", s)
	}
	if s := found[typeMemoryDevice]; binary.LittleEndian.Uint32(s[28:]) != 5<<10 || binary.LittleEndian.Uint16(s[12:]) != 0x7fff {
		t.Errorf("memory % x", s)
	}
	if s := found[typeMemoryArray]; binary.LittleEndian.Uint64(s[15:]) != 5<<30 {
		t.Errorf("memory array % x", s)
	}
}
