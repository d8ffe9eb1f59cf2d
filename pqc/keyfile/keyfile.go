package keyfile

import (
	"bytes"
	"context"
	"crypto/subtle"
	"encoding/asn1"
	"encoding/pem"

	"golang.org/x/crypto/cryptobyte"
	der "golang.org/x/crypto/cryptobyte/asn1"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// Types of PEM blocks.
const (
	typePublic  = "PUBLIC KEY"
	typePrivate = "PRIVATE KEY"
)

// arcs are the last two of the object identifiers 2.16.840.1.101.3.4 that NIST
// gave the parameter sets.
var arcs = map[pqc.Algorithm][2]int{
	pqc.MLKEM512: {4, 1}, pqc.MLKEM768: {4, 2}, pqc.MLKEM1024: {4, 3},
	pqc.MLDSA44: {3, 17}, pqc.MLDSA65: {3, 18}, pqc.MLDSA87: {3, 19},
	pqc.SLHDSA128s: {3, 20}, pqc.SLHDSA128f: {3, 21}, pqc.SLHDSA192s: {3, 22},
	pqc.SLHDSA192f: {3, 23}, pqc.SLHDSA256s: {3, 24}, pqc.SLHDSA256f: {3, 25},
}

func oid(a pqc.Algorithm) asn1.ObjectIdentifier {
	return asn1.ObjectIdentifier{2, 16, 840, 1, 101, 3, 4, arcs[a][0], arcs[a][1]}
}

// params are those of an algorithm that has a format here.
func params(a pqc.Algorithm) (pqc.Params, error) {
	if _, ok := arcs[a]; !ok {
		return pqc.Params{}, qverr.New(qverr.PQCAlgorithm, "%s has no key file format", a)
	}
	return a.Params()
}

// MarshalPublic makes the SubjectPublicKeyInfo of a public key, in DER.
// PQCAlgorithm: the algorithm has no key pairs. Inval: the key has a wrong size.
func MarshalPublic(a pqc.Algorithm, public []byte) ([]byte, error) {
	p, err := params(a)
	if err != nil {
		return nil, err
	}
	if len(public) != p.PublicKey {
		return nil, qverr.New(qverr.Inval, "%s public key of %d bytes, want %d", a, len(public), p.PublicKey)
	}
	var b cryptobyte.Builder
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		addAlgorithm(b, a)
		b.AddASN1BitString(public)
	})
	return b.Bytes()
}

// ParsePublic reads a SubjectPublicKeyInfo in DER or PEM. PQCAlgorithm: its
// algorithm is none of ours. Inval: it is malformed.
func ParsePublic(data []byte) (pqc.Algorithm, []byte, error) {
	data, err := unwrap(data, typePublic)
	if err != nil {
		return 0, nil, err
	}
	in := cryptobyte.String(data)
	var info cryptobyte.String
	if !in.ReadASN1(&info, der.SEQUENCE) || !in.Empty() {
		return 0, nil, malformed("no SubjectPublicKeyInfo")
	}
	p, err := readAlgorithm(&info)
	if err != nil {
		return 0, nil, err
	}
	var public []byte
	if !info.ReadASN1BitStringAsBytes(&public) || !info.Empty() || len(public) != p.PublicKey {
		return 0, nil, malformed("no %s public key of %d bytes", p.Name, p.PublicKey)
	}
	return p.Algorithm, public, nil
}

// Private is a secret key. Seed or Expanded or both are there; SLH-DSA has
// Expanded only.
type Private struct {
	Algorithm      pqc.Algorithm
	Seed, Expanded []byte
}

// Secret is the form of the key to load: the seed if there is one.
func (k *Private) Secret() []byte {
	if k.Seed != nil {
		return k.Seed
	}
	return k.Expanded
}

// Wipe overwrites the key.
func (k *Private) Wipe() {
	clear(k.Seed)
	clear(k.Expanded)
}

// Public derives the public key. PQCKeygen: the expanded form is not that of
// the seed, or contradicts itself.
func (k *Private) Public(ctx context.Context, p pqc.Provider) ([]byte, error) {
	public, err := p.PublicKey(ctx, k.Algorithm, k.Secret())
	if err != nil || k.Seed == nil || k.Expanded == nil {
		return public, err
	}
	expanded := make([]byte, len(k.Expanded))
	defer clear(expanded)
	if err := p.GenerateKey(ctx, k.Algorithm, k.Seed, public, expanded); err != nil {
		return nil, err
	}
	if subtle.ConstantTimeCompare(expanded, k.Expanded) != 1 {
		return nil, qverr.New(qverr.PQCKeygen, "seed and expanded form of the %s key do not belong together", k.Algorithm)
	}
	return public, nil
}

// MarshalPrivate makes the PKCS #8 form of a secret key, in DER. The caller
// wipes it. PQCAlgorithm: the algorithm has no key pairs. Inval: a form has a
// wrong size or none is there.
func MarshalPrivate(k *Private) ([]byte, error) {
	p, err := params(k.Algorithm)
	if err != nil {
		return nil, err
	}
	slh := isSLH(k.Algorithm)
	if !(k.Seed == nil || len(k.Seed) == p.Seed && !slh) || !(k.Expanded == nil || len(k.Expanded) == p.SecretKey) || k.Secret() == nil {
		return nil, qverr.New(qverr.Inval, "%s secret key with a seed of %d and an expanded form of %d bytes", k.Algorithm, len(k.Seed), len(k.Expanded))
	}
	b := cryptobyte.NewFixedBuilder(make([]byte, 0, p.Seed+p.SecretKey+64)) // does not leave copies of the key as it grows
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
		b.AddASN1Int64(0)
		addAlgorithm(b, k.Algorithm)
		b.AddASN1(der.OCTET_STRING, func(b *cryptobyte.Builder) {
			switch {
			case slh:
				b.AddBytes(k.Expanded)
			case k.Expanded == nil:
				b.AddASN1(der.Tag(0).ContextSpecific(), func(b *cryptobyte.Builder) { b.AddBytes(k.Seed) })
			case k.Seed == nil:
				b.AddASN1OctetString(k.Expanded)
			default:
				b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) {
					b.AddASN1OctetString(k.Seed)
					b.AddASN1OctetString(k.Expanded)
				})
			}
		})
	})
	return b.Bytes()
}

func isSLH(a pqc.Algorithm) bool { return arcs[a][0] == 3 && arcs[a][1] >= 20 }

// ParsePrivate reads a PKCS #8 key in DER or PEM; attributes and a public key
// in it are left alone. PQCAlgorithm: its algorithm is none of ours. Inval: it
// is malformed.
func ParsePrivate(data []byte) (*Private, error) {
	unwrapped, err := unwrap(data, typePrivate)
	if err != nil {
		return nil, err
	}
	if isPEM(data) {
		defer clear(unwrapped)
	}
	in := cryptobyte.String(unwrapped)
	var key, secret cryptobyte.String
	var version int
	if !in.ReadASN1(&key, der.SEQUENCE) || !in.Empty() || !key.ReadASN1Integer(&version) || version < 0 || version > 1 {
		return nil, malformed("no PKCS #8 key")
	}
	p, err := readAlgorithm(&key)
	if err != nil {
		return nil, err
	}
	attributes, public := der.Tag(0).ContextSpecific().Constructed(), der.Tag(1).ContextSpecific()
	if !key.ReadASN1(&secret, der.OCTET_STRING) || !key.SkipOptionalASN1(attributes) ||
		version == 1 && !key.SkipOptionalASN1(public) || !key.Empty() {
		return nil, malformed("no PKCS #8 key of %s", p.Name)
	}
	k := &Private{Algorithm: p.Algorithm}
	if !k.read(secret, p) {
		k.Wipe()
		return nil, malformed("the secret key of %s", p.Name)
	}
	return k, nil
}

// read reads the content of the private key field.
func (k *Private) read(s cryptobyte.String, p pqc.Params) bool {
	if isSLH(p.Algorithm) {
		k.Expanded = bytes.Clone(s)
		return len(s) == p.SecretKey
	}
	seed, both := der.Tag(0).ContextSpecific(), der.SEQUENCE
	var seedBytes, expanded, inner cryptobyte.String
	switch {
	case s.PeekASN1Tag(seed):
		if !s.ReadASN1(&seedBytes, seed) {
			return false
		}
	case s.PeekASN1Tag(both):
		if !s.ReadASN1(&inner, both) || !inner.ReadASN1(&seedBytes, der.OCTET_STRING) ||
			!inner.ReadASN1(&expanded, der.OCTET_STRING) || !inner.Empty() {
			return false
		}
	default:
		if !s.ReadASN1(&expanded, der.OCTET_STRING) {
			return false
		}
	}
	if seedBytes != nil {
		k.Seed = bytes.Clone(seedBytes)
	}
	if expanded != nil {
		k.Expanded = bytes.Clone(expanded)
	}
	return s.Empty() && (k.Seed == nil || len(k.Seed) == p.Seed) && (k.Expanded == nil || len(k.Expanded) == p.SecretKey)
}

// EncodePublic and EncodePrivate put what Marshal makes into PEM.
func EncodePublic(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typePublic, Bytes: der})
}
func EncodePrivate(der []byte) []byte {
	return pem.EncodeToMemory(&pem.Block{Type: typePrivate, Bytes: der})
}

// unwrap takes DER as it is, and the one block out of PEM.
func unwrap(data []byte, kind string) ([]byte, error) {
	if !isPEM(data) {
		return data, nil
	}
	block, rest := pem.Decode(data)
	if block == nil || block.Type != kind || len(bytes.TrimSpace(rest)) != 0 {
		return nil, malformed("no PEM file with one block %s", kind)
	}
	return block.Bytes, nil
}

func isPEM(data []byte) bool { return bytes.HasPrefix(bytes.TrimSpace(data), []byte("-----BEGIN ")) }

// addAlgorithm writes an AlgorithmIdentifier, which has no parameters here.
func addAlgorithm(b *cryptobyte.Builder, a pqc.Algorithm) {
	b.AddASN1(der.SEQUENCE, func(b *cryptobyte.Builder) { b.AddASN1ObjectIdentifier(oid(a)) })
}

func readAlgorithm(s *cryptobyte.String) (pqc.Params, error) {
	var identifier cryptobyte.String
	var id asn1.ObjectIdentifier
	if !s.ReadASN1(&identifier, der.SEQUENCE) || !identifier.ReadASN1ObjectIdentifier(&id) {
		return pqc.Params{}, malformed("no algorithm identifier")
	}
	for a := range arcs {
		if !id.Equal(oid(a)) {
			continue
		}
		if !identifier.Empty() {
			return pqc.Params{}, malformed("%s has no parameters", a)
		}
		return a.Params()
	}
	return pqc.Params{}, qverr.New(qverr.PQCAlgorithm, "a key of algorithm %s", id)
}

func malformed(format string, args ...any) error {
	return qverr.New(qverr.Inval, "key file: "+format, args...)
}
