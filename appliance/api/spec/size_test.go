package spec

import (
	"encoding/json"
	"testing"
)

func TestParseSize(t *testing.T) {
	for in, want := range map[string]ByteSize{
		"0": 0, "1": 1, "512": 512, "1K": 1 << 10, "16M": 16 << 20, "3G": 3 << 30, "4T": 4 << 40, "8388607T": 8388607 << 40,
		"9223372036854775807": 1<<63 - 1,
	} {
		got, err := ParseSize(in)
		if err != nil || got != want {
			t.Errorf("%q: %d, %v", in, got, err)
		}
	}
	for _, in := range []string{"", "M", "-1", "+1", "1.5G", "1m", "1KB", " 1", "1 ", "0x10", "1_000", "8388608T", "9223372036854775808", "１"} {
		if got, err := ParseSize(in); err == nil {
			t.Errorf("%q is taken for %d", in, got)
		}
	}
}

func FuzzByteSize(f *testing.F) {
	for _, seed := range []string{`"16M"`, `16777216`, `"x"`, `-1`, `1e3`, `null`} {
		f.Add([]byte(seed))
	}
	f.Fuzz(func(t *testing.T, data []byte) {
		var b, again ByteSize
		if json.Unmarshal(data, &b) != nil {
			return
		}
		if b < 0 {
			t.Fatalf("%s became %d", data, b)
		}
		out, err := json.Marshal(b)
		if err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal(out, &again); err != nil || again != b {
			t.Fatalf("%s became %d, then %s and %d: %v", data, b, out, again, err)
		}
	})
}
