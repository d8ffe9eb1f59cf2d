package authenticode

import (
	"bytes"
	"testing"
)

func FuzzParseDB(f *testing.F) {
	list := append(append(typeX509[:], 47, 0, 0, 0, 0, 0, 0, 0, 19, 0, 0, 0), bytes.Repeat([]byte{0x30}, 19)...)
	f.Add(list)
	f.Add(append(bytes.Clone(list), list...))
	f.Fuzz(func(t *testing.T, data []byte) {
		db, err := ParseDB(data)
		if err != nil {
			return
		}
		total := 0
		for _, c := range db.Certificates {
			total += len(c.Raw)
		}
		if total > len(data) {
			t.Errorf("%d bytes of certificates out of %d", total, len(data))
		}
	})
}

func FuzzParse(f *testing.F) {
	f.Add([]byte{0x30, 0x0b, 0x06, 0x09, 0x2a, 0x86, 0x48, 0x86, 0xf7, 0x0d, 0x01, 0x07, 0x02})
	f.Fuzz(func(t *testing.T, der []byte) {
		if s, err := Parse(der); err == nil {
			_ = s.Certificate()
		}
	})
}
