package channel

import (
	"crypto/tls"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// Policy is the key exchange of a channel, which both sides must have alike.
type Policy tls.CurveID

// Policies.
const (
	X25519MLKEM768     = Policy(tls.X25519MLKEM768)
	SecP384r1MLKEM1024 = Policy(tls.SecP384r1MLKEM1024)
)

// ParsePolicy reads the name of a key exchange, or of the ML-KEM set in it.
// PQC_ERR_PARAM_SET: one that is too weak, or goes with no exchange; PQC_ERR_ALGORITHM: none.
func ParsePolicy(name string) (Policy, error) {
	switch strings.ToUpper(name) {
	case "X25519MLKEM768", "ML-KEM-768":
		return X25519MLKEM768, nil
	case "SECP384R1MLKEM1024", "ML-KEM-1024":
		return SecP384r1MLKEM1024, nil
	case "ML-KEM-512":
		return 0, qverr.New(qverr.PQCParamSet, "a channel takes no ML-KEM-512").WithHint("use X25519MLKEM768 or SecP384r1MLKEM1024")
	}
	return 0, qverr.New(qverr.PQCAlgorithm, "%.64q is no key exchange of a channel", name).WithHint("use X25519MLKEM768 or SecP384r1MLKEM1024")
}

// String is the exchange's name.
func (p Policy) String() string { return tls.CurveID(p).String() }

// check refuses what ParsePolicy does not give.
func (p Policy) check() error {
	if p != X25519MLKEM768 && p != SecP384r1MLKEM1024 {
		return qverr.New(qverr.PQCParamSet, "a channel with the key exchange %s", p)
	}
	return nil
}

// identities are what a peer may be. ML-DSA-44 is below what ML-KEM-768 gives.
var identities = map[byte]pqc.Algorithm{65: pqc.MLDSA65, 87: pqc.MLDSA87}

// identityByte names a set on the wire.
func identityByte(a pqc.Algorithm) (byte, error) {
	for b, known := range identities {
		if known == a {
			return b, nil
		}
	}
	return 0, qverr.New(qverr.PQCParamSet, "an identity of %s: it is ML-DSA-65 or ML-DSA-87", a)
}
