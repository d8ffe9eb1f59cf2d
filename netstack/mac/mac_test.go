package mac

import (
	"encoding/json"
	"testing"

	"quantavirt/internal/qverr"
)

func TestParse(t *testing.T) {
	for _, c := range []struct{ in, want string }{
		{"52:54:00:12:34:56", "52:54:00:12:34:56"},
		{"52-54-00-AB-cd-ef", "52:54:00:ab:cd:ef"},
		{"5254.0012.3456", "52:54:00:12:34:56"},
		{in: ""}, {in: "52:54:00:12:34"}, {in: "52:54:00:12:34:56:78:9a"}, {in: "00:00:00:00:00:00"},
		{in: "ff:ff:ff:ff:ff:ff"}, {in: "01:00:5e:00:00:01"}, {in: "gg:54:00:12:34:56"}, {in: "52:54:00:12:34:56 "},
	} {
		got, err := Parse(c.in)
		switch {
		case c.want == "" && qverr.CodeOf(err) != qverr.NetMAC:
			t.Errorf("%q: %v, %v, want QV_NET_ERR_MAC", c.in, got, err)
		case c.want != "" && (err != nil || got.String() != c.want):
			t.Errorf("%q: %v, %v, want %s", c.in, got, err, c.want)
		}
	}
}

// TestForVM fixes the choice: guests keep their addresses over updates.
func TestForVM(t *testing.T) {
	id := [16]byte{0x6f, 0x1f, 0x2a, 0x3b, 0x11, 0x11, 0x42, 0x22, 0x83, 0x33, 0x44, 0x44, 0x55, 0x55, 0x66, 0x66}
	if got, want := ForVM(id, 0).String(), "06:31:d5:d6:74:dd"; got != want {
		t.Errorf("%s, want %s", got, want)
	}
	seen := make(map[Addr]bool)
	for vm := range 64 {
		for nic := range 16 {
			id[15] = byte(vm)
			a := ForVM(id, nic)
			if a.Check() != nil || a[0]&0x03 != 0x02 {
				t.Errorf("%s is not a local unicast address", a)
			}
			if a != ForVM(id, nic) || seen[a] {
				t.Errorf("%s is not always the same or not only its own", a)
			}
			seen[a] = true
		}
	}
}

func TestJSON(t *testing.T) {
	var a Addr
	if err := json.Unmarshal([]byte(`"52:54:00:12:34:56"`), &a); err != nil {
		t.Fatal(err)
	}
	if b, err := json.Marshal(a); err != nil || string(b) != `"52:54:00:12:34:56"` {
		t.Errorf("%s, %v", b, err)
	}
	if err := json.Unmarshal([]byte(`"ff:ff:ff:ff:ff:ff"`), &a); err == nil {
		t.Error("broadcast accepted")
	}
}

func FuzzParse(f *testing.F) {
	f.Add("52:54:00:12:34:56")
	f.Fuzz(func(t *testing.T, s string) {
		a, err := Parse(s)
		if err != nil {
			return
		}
		if again, err := Parse(a.String()); err != nil || again != a {
			t.Errorf("%q became %s, then %s (%v)", s, a, again, err)
		}
	})
}
