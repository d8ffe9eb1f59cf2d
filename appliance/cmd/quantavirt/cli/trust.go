package cli

import (
	"bytes"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"encoding/hex"
	"os"
	"strings"

	"quantavirt/internal/qverr"
)

// trust is how a node's certificate is judged: by the fingerprint of its
// authority, by the certificates of a file, or with neither by the system's.
type trust struct {
	pin   []byte // SHA-256 of the authority's DER certificate
	roots *x509.CertPool
}

const pinPrefix = "sha256:"

func fingerprint(cert *x509.Certificate) string {
	sum := sha256.Sum256(cert.Raw)
	return pinPrefix + hex.EncodeToString(sum[:])
}

// parseTrust reads a fingerprint (sha256:HEX, with or without colons between
// the bytes) or the path of a PEM file; "" trusts the system's authorities.
func parseTrust(s string) (trust, error) {
	if s == "" {
		return trust{}, nil
	}
	digits, isPin := strings.CutPrefix(strings.ToLower(s), pinPrefix)
	raw, err := hex.DecodeString(strings.ReplaceAll(digits, ":", ""))
	if err == nil && len(raw) == sha256.Size {
		return trust{pin: raw}, nil
	}
	if isPin {
		return trust{}, qverr.New(qverr.Inval, "%q is not sha256: and 64 hex digits", s)
	}
	pem, err := os.ReadFile(s)
	if err != nil {
		return trust{}, qverr.New(qverr.CodeOf(err), "certificate authority: %w", err).
			WithHint("give a fingerprint, sha256:HEX, or the path of a PEM file")
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return trust{}, qverr.New(qverr.Inval, "%s holds no PEM certificate", s)
	}
	return trust{roots: roots}, nil
}

// config is TLS 1.3 with post-quantum key exchange only.
func (t trust) config() *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: []tls.CurveID{tls.X25519MLKEM768, tls.SecP384r1MLKEM1024},
		// verify does what this switches off, for the three kinds of trust.
		InsecureSkipVerify: true,
		VerifyConnection:   t.verify,
	}
}

func (t trust) verify(cs tls.ConnectionState) error {
	chain := cs.PeerCertificates
	if len(chain) == 0 {
		return qverr.New(qverr.Auth, "the node showed no certificate")
	}
	opts := x509.VerifyOptions{Intermediates: x509.NewCertPool(), Roots: t.roots}
	for _, c := range chain[1:] {
		opts.Intermediates.AddCert(c)
	}
	authority := chain[len(chain)-1]
	if t.pin == nil {
		opts.DNSName = cs.ServerName
		return t.judge(chain[0], opts, authority)
	}
	for _, c := range chain {
		sum := sha256.Sum256(c.Raw)
		if bytes.Equal(sum[:], t.pin) {
			// The authority signs for one node only, so it names the node; by
			// which address it was reached does not matter.
			opts.Roots = x509.NewCertPool()
			opts.Roots.AddCert(c)
			return t.judge(chain[0], opts, authority)
		}
	}
	return qverr.New(qverr.Auth, "the node's authority is %s, the pinned one is %s%s", fingerprint(authority), pinPrefix, hex.EncodeToString(t.pin)).
		WithHint("compare with the node's console: another machine answers, or the node was set up anew")
}

func (t trust) judge(leaf *x509.Certificate, opts x509.VerifyOptions, authority *x509.Certificate) error {
	_, err := leaf.Verify(opts)
	if err == nil {
		return nil
	}
	if t.pin == nil && t.roots == nil {
		return qverr.New(qverr.Auth, "the node's authority %s is not known: %w", fingerprint(authority), err).
			WithHint("compare it with the node's console, then accept it with --ca-pin %s (or QUANTAVIRT_CA)", fingerprint(authority))
	}
	return qverr.New(qverr.Auth, "the node's certificate is not valid: %w", err).
		WithHint("check the clocks of both machines and the name that the node was reached by")
}
