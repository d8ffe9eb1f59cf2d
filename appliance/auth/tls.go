package auth

import (
	"crypto/tls"
	"strconv"

	"quantavirt/appliance/api/spec"
)

func itoa(n uint32) string { return strconv.FormatUint(uint64(n), 10) }

// Policy says which key exchanges the API's TLS accepts.
type Policy = spec.TLSInfoPolicy

// Curves lists the key exchanges of a policy: hybrids with ML-KEM only, unless
// it is the compatible one.
func Curves(p Policy) []tls.CurveID {
	curves := []tls.CurveID{tls.X25519MLKEM768, tls.SecP384r1MLKEM1024}
	if p == spec.TLSInfoPolicyCompatible {
		curves = append(curves, tls.X25519)
	}
	return curves
}

// TLSConfig is the server side of the API on the network: TLS 1.3 only, the key
// exchanges of the policy, HTTP/1.1 because console connections are upgraded.
func (a *Authority) TLSConfig(p Policy) *tls.Config {
	return &tls.Config{
		MinVersion:       tls.VersionTLS13,
		CurvePreferences: Curves(p),
		NextProtos:       []string{"http/1.1"},
		GetCertificate:   func(*tls.ClientHelloInfo) (*tls.Certificate, error) { return a.Certificate() },
	}
}
