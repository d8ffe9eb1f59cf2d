package auth

import (
	"bytes"
	"crypto/ecdsa"
	"crypto/elliptic"
	"crypto/rand"
	"crypto/sha256"
	"crypto/tls"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/hex"
	"encoding/pem"
	"math/big"
	"net"
	"net/netip"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"quantavirt/internal/qverr"
)

const (
	// leafLife and leafRenew: server certificates are cheap and in memory
	// only, so they live short.
	leafLife  = 7 * 24 * time.Hour
	leafRenew = 24 * time.Hour
	// clockSlack lets clients in whose clock is behind, and covers a node
	// whose own clock jumps ahead with the first SNTP answer.
	clockSlack = 24 * time.Hour
)

// forever is the notAfter of RFC 5280, section 4.1.2.5, for certificates
// without an expiry; the authority ends with its node.
var forever = time.Date(9999, 12, 31, 23, 59, 59, 0, time.UTC)

// certifiable tells whether a name may stand in a certificate: 1 to 253 letters,
// digits, dots and dashes between a letter or digit at each end. An odd name of the
// node must not cost it its TLS. (A regular expression of this size costs every
// process of the image a quarter of its start.)
func certifiable(name string) bool {
	alnum := func(c byte) bool { return c|0x20 >= 'a' && c|0x20 <= 'z' || c >= '0' && c <= '9' }
	if len(name) < 1 || len(name) > 253 || !alnum(name[0]) || !alnum(name[len(name)-1]) {
		return false
	}
	for i := range len(name) {
		if c := name[i]; !alnum(c) && c != '.' && c != '-' {
			return false
		}
	}
	return true
}

// Authority is the node's certificate authority.
type Authority struct {
	cert *x509.Certificate
	key  *ecdsa.PrivateKey
	now  func() time.Time

	mu    sync.Mutex
	names []string
	addrs []netip.Addr
	leaf  *tls.Certificate
}

// OpenAuthority reads the authority from dir (ca.pem), or makes it.
func OpenAuthority(dir string) (*Authority, error) {
	path := filepath.Join(dir, "ca.pem")
	data, err := os.ReadFile(path)
	if os.IsNotExist(err) {
		data, err = makeAuthority(dir, path)
	}
	if err != nil {
		return nil, qverr.New(qverr.IO, "node authority: %w", err)
	}
	a := &Authority{now: time.Now}
	if err := a.parse(data); err != nil {
		return nil, qverr.New(qverr.IO, "node authority %s: %w", path, err)
	}
	return a, nil
}

func (a *Authority) parse(data []byte) error {
	pair, err := tls.X509KeyPair(data, data)
	if err != nil {
		return err
	}
	key, ok := pair.PrivateKey.(*ecdsa.PrivateKey)
	if !ok {
		return qverr.New(qverr.Config, "its key is not ECDSA")
	}
	a.cert, a.key = pair.Leaf, key
	return nil
}

// makeAuthority writes certificate and key as one file, so that there is never
// one without the other.
func makeAuthority(dir, path string) ([]byte, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "QuantaVirt node authority " + hex.EncodeToString(serial.Bytes()[:4])},
		// Not the clock: at first boot it may be wrong in either direction.
		NotBefore:             time.Date(2020, 1, 1, 0, 0, 0, 0, time.UTC),
		NotAfter:              forever,
		IsCA:                  true,
		MaxPathLenZero:        true,
		BasicConstraintsValid: true,
		KeyUsage:              x509.KeyUsageCertSign,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, key.Public(), key)
	if err != nil {
		return nil, err
	}
	keyDER, err := x509.MarshalPKCS8PrivateKey(key)
	if err != nil {
		return nil, err
	}
	var out bytes.Buffer
	_ = pem.Encode(&out, &pem.Block{Type: "CERTIFICATE", Bytes: der})
	_ = pem.Encode(&out, &pem.Block{Type: "PRIVATE KEY", Bytes: keyDER})
	return out.Bytes(), writeSecret(dir, path, out.Bytes())
}

func newSerial() (*big.Int, error) {
	var b [16]byte
	if _, err := rand.Read(b[:]); err != nil {
		return nil, err
	}
	b[0] = b[0]&0x7f | 0x40 // positive, and always of full length
	return new(big.Int).SetBytes(b[:]), nil
}

func writeSecret(dir, path string, data []byte) error {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return err
	}
	f, err := os.CreateTemp(dir, ".new-*") // mode 0600
	if err != nil {
		return err
	}
	defer func() { _ = os.Remove(f.Name()) }()
	_, err = f.Write(data)
	if err == nil {
		err = f.Sync()
	}
	if closeErr := f.Close(); err == nil {
		err = closeErr
	}
	if err != nil {
		return err
	}
	return os.Rename(f.Name(), path)
}

// Fingerprint is what clients pin: "sha256:" and the hex SHA-256 of the
// authority's DER certificate.
func (a *Authority) Fingerprint() string {
	sum := sha256.Sum256(a.cert.Raw)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// SetNames tells under which host names and addresses the node is reached, in
// addition to localhost.
func (a *Authority) SetNames(names []string, addrs []netip.Addr) {
	names = slices.DeleteFunc(slices.Clone(names), func(n string) bool { return !certifiable(n) })
	addrs = slices.Clone(addrs)
	slices.SortFunc(addrs, netip.Addr.Compare)
	addrs = slices.Compact(addrs)
	a.mu.Lock()
	defer a.mu.Unlock()
	if slices.Equal(names, a.names) && slices.Equal(addrs, a.addrs) {
		return
	}
	a.names, a.addrs, a.leaf = names, addrs, nil
}

// Certificate returns the server certificate of the moment.
func (a *Authority) Certificate() (*tls.Certificate, error) {
	a.mu.Lock()
	defer a.mu.Unlock()
	now := a.now()
	if l := a.leaf; l != nil && now.After(l.Leaf.NotBefore) && now.Before(l.Leaf.NotAfter.Add(-leafLife+leafRenew)) {
		return l, nil
	}
	leaf, err := a.sign(now)
	if err != nil {
		return nil, qverr.New(qverr.Generic, "make a server certificate: %w", err)
	}
	a.leaf = leaf
	return leaf, nil
}

func (a *Authority) sign(now time.Time) (*tls.Certificate, error) {
	key, err := ecdsa.GenerateKey(elliptic.P256(), rand.Reader)
	if err != nil {
		return nil, err
	}
	serial, err := newSerial()
	if err != nil {
		return nil, err
	}
	template := &x509.Certificate{
		SerialNumber: serial,
		Subject:      pkix.Name{CommonName: "QuantaVirt node"},
		NotBefore:    now.Add(-clockSlack),
		NotAfter:     now.Add(leafLife),
		KeyUsage:     x509.KeyUsageDigitalSignature,
		ExtKeyUsage:  []x509.ExtKeyUsage{x509.ExtKeyUsageServerAuth},
		DNSNames:     append([]string{"localhost"}, a.names...),
		IPAddresses:  []net.IP{net.IPv4(127, 0, 0, 1), net.IPv6loopback},
	}
	for _, addr := range a.addrs {
		template.IPAddresses = append(template.IPAddresses, addr.AsSlice())
	}
	der, err := x509.CreateCertificate(rand.Reader, template, a.cert, key.Public(), a.key)
	if err != nil {
		return nil, err
	}
	leaf, err := x509.ParseCertificate(der)
	if err != nil {
		return nil, err
	}
	return &tls.Certificate{Certificate: [][]byte{der, a.cert.Raw}, PrivateKey: key, Leaf: leaf}, nil
}
