package configdhcp

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"github.com/google/uuid"
	"github.com/insomniacslk/dhcp/dhcpv4"
)

// wire makes a message and reads it as the other side does.
func wire(t *testing.T, opts ...dhcpv4.Option) *dhcpv4.DHCPv4 {
	t.Helper()
	m, err := dhcpv4.New()
	if err != nil {
		t.Fatal(err)
	}
	for _, o := range opts {
		m.UpdateOption(o)
	}
	got, err := dhcpv4.FromBytes(m.ToBytes())
	if err != nil {
		t.Fatal(err)
	}
	return got
}

func TestQuestion(t *testing.T) {
	id := uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff")
	q := wire(t, Question(Machine{Serial: "S4BX 2071", UUID: id})...)
	if q.ClassIdentifier() != Class || Serial(q) != "S4BX 2071" {
		t.Errorf("%s", q.Summary())
	}
	if got := q.Options.Get(dhcpv4.OptionClientMachineIdentifier); string(got) != "\x00"+string(id[:]) {
		t.Errorf("UUID % x", got)
	}
	if q := wire(t, Question(Machine{Serial: strings.Repeat("x", 256)})...); Serial(q) != "" || q.Options.Has(dhcpv4.OptionClientMachineIdentifier) {
		t.Errorf("of a machine that says nothing: %s", q.Summary())
	}
}

func TestAnswer(t *testing.T) {
	for name, c := range map[string]struct {
		opts []dhcpv4.Option
		url  string
		ok   bool
	}{
		"told":              {Answer("http://10.0.0.1/config/x"), "http://10.0.0.1/config/x", true},
		"longest":           {Answer(strings.Repeat("u", MaxText)), strings.Repeat("u", MaxText), true},
		"there is none":     {Answer(""), "", true},
		"another server":    {nil, "", false},
		"of PXE":            {[]dhcpv4.Option{dhcpv4.OptClassIdentifier("PXEClient"), raw(1, 1, 'u')}, "", false},
		"no address in it":  {[]dhcpv4.Option{dhcpv4.OptClassIdentifier(Class), raw(9, 1, 'u', 255, 1, 1, 'u')}, "", false},
		"behind others":     {[]dhcpv4.Option{dhcpv4.OptClassIdentifier(Class), raw(0, 9, 1, 'x', 1, 1, 'u')}, "u", true},
		"cut":               {[]dhcpv4.Option{dhcpv4.OptClassIdentifier(Class), raw(1, 9, 'u')}, "", false},
		"cut in its length": {[]dhcpv4.Option{dhcpv4.OptClassIdentifier(Class), raw(1)}, "", false},
		"control character": {Answer("http://x/\n"), "http://x/\n", false},
	} {
		if url, ok := URL(wire(t, c.opts...)); url != c.url || ok != c.ok {
			t.Errorf("%s: %q %v", name, url, ok)
		}
	}
}

func raw(b ...byte) dhcpv4.Option {
	return dhcpv4.OptGeneric(dhcpv4.OptionVendorSpecificInformation, b)
}

func TestThisMachine(t *testing.T) {
	sys := t.TempDir()
	if m := ThisMachine(sys); m != (Machine{}) {
		t.Errorf("%+v", m)
	}
	dir := filepath.Join(sys, "class/dmi/id")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for name, text := range map[string]string{"product_serial": " S4BX2071 \n", "product_uuid": "00112233-4455-6677-8899-aabbccddeeff\n"} {
		if err := os.WriteFile(filepath.Join(dir, name), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if m := ThisMachine(sys); m.Serial != "S4BX2071" || m.UUID != uuid.MustParse("00112233-4455-6677-8899-aabbccddeeff") {
		t.Errorf("%+v", m)
	}
}

func FuzzText(f *testing.F) {
	f.Add([]byte{1, 1, 'u', 255})
	f.Add([]byte{0, 9, 0, 1, 2, 'u'})
	f.Fuzz(func(t *testing.T, data []byte) {
		m := &dhcpv4.DHCPv4{Options: dhcpv4.OptionsFromList(dhcpv4.OptClassIdentifier(Class), raw(data...))}
		if url, ok := URL(m); ok && (len(url) > MaxText || strings.ContainsAny(url, "\n\r\x00")) {
			t.Errorf("%q", url)
		}
		if s := Serial(m); len(s) > MaxText {
			t.Errorf("%q", s)
		}
	})
}
