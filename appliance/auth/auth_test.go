package auth

import (
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
)

func openTokens(t *testing.T, path string) (*Tokens, *store.DB) {
	t.Helper()
	db, err := store.Open(path)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	tokens, err := OpenTokens(db)
	if err != nil {
		t.Fatal(err)
	}
	return tokens, db
}

func TestTokenLife(t *testing.T) {
	path := filepath.Join(t.TempDir(), "state.db")
	tokens, db := openTokens(t, path)
	if !tokens.Empty() {
		t.Error("a new store has tokens")
	}
	made, err := tokens.Create("first", spec.TokenRoleAdmin, 0, spec.TokenOriginFirstBoot)
	if err != nil {
		t.Fatal(err)
	}
	if !regexp.MustCompile(`^qv_[A-Za-z0-9_-]{43}$`).MatchString(made.Token) || len(made.Token) != TokenLen {
		t.Errorf("token %q has the wrong form", made.Token)
	}
	who, err := tokens.Check("Bearer " + made.Token)
	if err != nil || who.Role != spec.TokenRoleAdmin {
		t.Fatalf("Check = %+v, %v", who, err)
	}
	for name, header := range map[string]string{
		"none": "", "no scheme": made.Token, "basic": "Basic " + made.Token, "empty": "Bearer ",
		"one character off": "Bearer " + made.Token[:len(made.Token)-1] + "!", "cut": "Bearer " + made.Token[:20],
		"the hash itself": "Bearer " + hex.EncodeToString(hashOf(made.Token)),
	} {
		if _, err := tokens.Check(header); !errors.Is(err, qverr.Auth) {
			t.Errorf("%s: %v, want QV_ERR_AUTH", name, err)
		}
	}
	_ = db.Close()

	raw, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Contains(string(raw), made.Token) {
		t.Error("the token itself is stored")
	}
	tokens, _ = openTokens(t, path)
	if _, err := tokens.Check("bearer " + made.Token); err != nil {
		t.Errorf("after reopening: %v", err)
	}
	if err := tokens.Revoke(made.Info.ID); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Check("Bearer " + made.Token); !errors.Is(err, qverr.Auth) {
		t.Errorf("revoked token: %v", err)
	}
	if err := tokens.Revoke(made.Info.ID); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("second revocation: %v", err)
	}
}

func hashOf(s string) []byte { h := sha256.Sum256([]byte(s)); return h[:] }

func TestTokenExpires(t *testing.T) {
	tokens, _ := openTokens(t, filepath.Join(t.TempDir(), "state.db"))
	made, err := tokens.Create("", spec.TokenRoleViewer, time.Minute, spec.TokenOriginAPI)
	if err != nil {
		t.Fatal(err)
	}
	if who, err := tokens.Check("Bearer " + made.Token); err != nil || who.Role != spec.TokenRoleViewer {
		t.Fatalf("Check = %+v, %v", who, err)
	}
	tokens.now = func() time.Time { return time.Now().Add(2 * time.Minute) }
	if _, err := tokens.Check("Bearer " + made.Token); !errors.Is(err, qverr.Auth) {
		t.Errorf("expired token: %v", err)
	}
}

func TestTrustedHash(t *testing.T) {
	tokens, _ := openTokens(t, filepath.Join(t.TempDir(), "state.db"))
	for _, bad := range []string{"", "sha256:", "sha256:zz", "md5:00", "sha256:" + strings.Repeat("0", 62)} {
		if err := tokens.Trust(bad); !errors.Is(err, qverr.Inval) {
			t.Errorf("Trust(%q) = %v", bad, err)
		}
	}
	if err := tokens.Trust("sha256:" + hex.EncodeToString(hashOf("qv_x"))); err != nil {
		t.Fatal(err)
	}
	if _, err := tokens.Check("Bearer qv_x"); err != nil {
		t.Error(err)
	}
}

func TestPeers(t *testing.T) {
	for _, c := range []struct {
		uid, own uint32
		ok       bool
	}{{0, 0, true}, {0, 1000, true}, {1000, 1000, true}, {1001, 1000, false}, {65534, 0, false}} {
		_, err := peerOf(c.uid, c.own)
		if (err == nil) != c.ok || err != nil && !errors.Is(err, qverr.Perm) {
			t.Errorf("uid %d at a daemon of uid %d: %v", c.uid, c.own, err)
		}
	}
}

func TestAuthority(t *testing.T) {
	dir := t.TempDir()
	a, err := OpenAuthority(dir)
	if err != nil {
		t.Fatal(err)
	}
	again, err := OpenAuthority(dir)
	if err != nil || again.Fingerprint() != a.Fingerprint() {
		t.Fatalf("the authority changed: %v", err)
	}
	if info, err := os.Stat(filepath.Join(dir, "ca.pem")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("ca.pem: %v, %v", info.Mode(), err)
	}
	a.SetNames([]string{"node1", "bäh", ""}, []netip.Addr{netip.MustParseAddr("192.0.2.7")})
	c, err := a.Certificate()
	if err != nil {
		t.Fatal(err)
	}
	roots := x509.NewCertPool()
	roots.AddCert(a.cert)
	for _, name := range []string{"node1", "localhost", "127.0.0.1", "192.0.2.7"} {
		if _, err := c.Leaf.Verify(x509.VerifyOptions{Roots: roots, DNSName: name}); err != nil {
			t.Errorf("%s: %v", name, err)
		}
	}
	if same, _ := a.Certificate(); same != c {
		t.Error("a new certificate without a reason")
	}
	a.SetNames([]string{"node1"}, []netip.Addr{netip.MustParseAddr("192.0.2.8")})
	if other, _ := a.Certificate(); other == c {
		t.Error("the certificate does not follow the addresses")
	}
	before, _ := a.Certificate()
	a.now = func() time.Time { return time.Now().Add(30 * 24 * time.Hour) }
	if after, _ := a.Certificate(); after == before {
		t.Error("the certificate does not follow the clock")
	}
}

func TestKeyExchangePolicy(t *testing.T) {
	a, err := OpenAuthority(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct {
		policy Policy
		client []tls.CurveID
		max    uint16
		ok     bool
	}{
		{spec.TLSInfoPolicyPQOnly, []tls.CurveID{tls.X25519MLKEM768}, 0, true},
		{spec.TLSInfoPolicyPQOnly, []tls.CurveID{tls.SecP384r1MLKEM1024}, 0, true},
		{spec.TLSInfoPolicyPQOnly, []tls.CurveID{tls.X25519}, 0, false},
		{spec.TLSInfoPolicyPQOnly, []tls.CurveID{tls.CurveP256, tls.CurveP384}, 0, false},
		{spec.TLSInfoPolicyCompatible, []tls.CurveID{tls.X25519}, 0, true},
		{spec.TLSInfoPolicyCompatible, []tls.CurveID{tls.X25519MLKEM768}, tls.VersionTLS12, false},
	} {
		server, client := net.Pipe()
		done := make(chan error, 1)
		go func() {
			s := tls.Server(server, a.TLSConfig(c.policy))
			done <- s.Handshake()
			_ = server.Close()
		}()
		conn := tls.Client(client, &tls.Config{InsecureSkipVerify: true, CurvePreferences: c.client, MaxVersion: c.max})
		err := conn.Handshake()
		_ = client.Close()
		if serverErr := <-done; (serverErr == nil) != c.ok {
			t.Errorf("%s with %v: server %v, client %v", c.policy, c.client, serverErr, err)
		}
	}
}

func TestCertifiable(t *testing.T) {
	for name, want := range map[string]bool{
		"a": true, "node1": true, "NODE-1.example.org": true, "0": true, strings.Repeat("z", 253): true,
		"": false, "-a": false, "a-": false, ".a": false, "a.": false, "a b": false, "bäh": false, "a@b": false, "a[": false, "a\x00b": false, strings.Repeat("z", 254): false,
	} {
		if certifiable(name) != want {
			t.Errorf("%.20q: %v", name, !want)
		}
	}
}
