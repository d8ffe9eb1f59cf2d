package channel

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

func TestTrust(t *testing.T) {
	path := filepath.Join(t.TempDir(), "peers.json")
	trust, err := OpenTrust(path)
	if err != nil {
		t.Fatal(err)
	}
	a := Peer{"a", Fingerprint([]byte("a")), []string{"tunnel"}}
	b := Peer{"b", Fingerprint([]byte("b")), []string{"tunnel", "migration"}}
	for _, p := range []Peer{b, a} {
		if err := trust.Add(p); err != nil {
			t.Fatal(err)
		}
	}
	for _, bad := range []Peer{a, {"a", b.Fingerprint, a.Protocols}, {"c", a.Fingerprint, a.Protocols}} {
		if err := trust.Add(bad); !errors.Is(err, qverr.Exist) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	for _, bad := range []Peer{
		{"", Fingerprint(nil), a.Protocols}, {"c", "sha256:00", a.Protocols}, {"c", strings.ToUpper(Fingerprint(nil)), a.Protocols},
		{"c", Fingerprint(nil), nil}, {"c", Fingerprint(nil), []string{"Upper"}}, {strings.Repeat("c", 65), Fingerprint(nil), a.Protocols},
	} {
		if err := trust.Add(bad); !errors.Is(err, qverr.Inval) {
			t.Errorf("%+v: %v", bad, err)
		}
	}
	again, err := OpenTrust(path)
	if err != nil || len(again.Peers()) != 2 || again.Peers()[0].Name != "a" {
		t.Fatalf("%+v, %v", again.Peers(), err)
	}
	if p, err := again.find([]byte("b"), "migration"); err != nil || p.Name != "b" {
		t.Errorf("%+v, %v", p, err)
	}
	if _, err := again.find([]byte("a"), "migration"); !errors.Is(err, qverr.PQCVerify) {
		t.Errorf("for another protocol: %v", err)
	}
	if err := again.Remove("a"); err != nil {
		t.Fatal(err)
	}
	if err := again.Remove("a"); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("twice: %v", err)
	}
	if _, err := again.find([]byte("a"), "tunnel"); !errors.Is(err, qverr.PQCVerify) {
		t.Errorf("removed: %v", err)
	}
}

func TestTrustDamaged(t *testing.T) {
	good := `{"name":"a","fingerprint":"` + Fingerprint(nil) + `","protocols":["x"]}`
	for _, text := range []string{"", "{", "[{}]", `[{"name":"a","extra":1}]`, "[" + good + "," + good + "]"} {
		path := filepath.Join(t.TempDir(), "peers.json")
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		if _, err := OpenTrust(path); !errors.Is(err, qverr.Config) {
			t.Errorf("%q: %v", text, err)
		}
	}
}
