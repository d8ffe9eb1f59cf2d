package pqc

import (
	"crypto"
	"crypto/hkdf"
	"crypto/sha256"
	"crypto/sha3"
	"crypto/sha512"
	"hash"

	"quantavirt/internal/qverr"
	keep "quantavirt/internal/secret"
)

// hashes are those that can be had and that a message can be pre-hashed with:
// the last arc of the object identifier 2.16.840.1.101.3.4.2 and the number in
// the standard library, which has none for the XOFs.
var hashes = map[Algorithm]struct {
	arc byte
	id  crypto.Hash
	new func() hash.Hash
}{
	SHA256:   {1, crypto.SHA256, sha256.New},
	SHA384:   {2, crypto.SHA384, sha512.New384},
	SHA512:   {3, crypto.SHA512, sha512.New},
	SHA3_256: {8, crypto.SHA3_256, func() hash.Hash { return sha3.New256() }},
	SHA3_384: {9, crypto.SHA3_384, func() hash.Hash { return sha3.New384() }},
	SHA3_512: {10, crypto.SHA3_512, func() hash.Hash { return sha3.New512() }},
	SHAKE128: {arc: 11},
	SHAKE256: {arc: 12},
}

func newXOF(a Algorithm) XOF {
	if a == SHAKE128 {
		return sha3.NewSHAKE128()
	}
	return sha3.NewSHAKE256()
}

// digest is the object identifier of a hash in DER and the hash of message:
// what a pre-hashed signature is about (FIPS 204, section 5.4).
func digest(a Algorithm, message []byte) []byte {
	h := hashes[a]
	out := []byte{0x06, 0x09, 0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, h.arc}
	if h.new != nil {
		d := h.new()
		d.Write(message)
		return d.Sum(out)
	}
	p, _ := a.Params() // it is in both tables
	x := newXOF(a)
	_, _ = x.Write(message) // never fails
	out = append(out, make([]byte, p.Output)...)
	_, _ = x.Read(out[len(out)-p.Output:])
	return out
}

// Hash is a fresh hash.
func (s *software) Hash(a Algorithm) (hash.Hash, error) {
	if _, err := s.use(FamilyHash, a); err != nil {
		return nil, err
	}
	return hashes[a].new(), nil
}

// XOF is a fresh extendable-output function.
func (s *software) XOF(a Algorithm) (XOF, error) {
	if _, err := s.use(FamilyXOF, a); err != nil {
		return nil, err
	}
	return newXOF(a), nil
}

// KDF is HKDF (RFC 5869), extract and expand.
func (s *software) KDF(a Algorithm, key, secret, salt, info []byte) error {
	p, err := s.use(FamilyKDF, a)
	if err != nil {
		return err
	}
	if len(key) == 0 || len(key) > 255*p.Output {
		return qverr.New(qverr.PQCKDF, "%s gives 1 to %d bytes, not %d", a, 255*p.Output, len(key))
	}
	keep.Do(func() { err = hkdfSHA3(key, secret, salt, info) })
	if err != nil {
		return qverr.New(qverr.PQCKDF, "%s: %w", a, err)
	}
	return nil
}

func hkdfSHA3(key, secret, salt, info []byte) error {
	out, err := hkdf.Key(sha3.New256, secret, salt, string(info), len(key))
	copy(key, out)
	clear(out)
	return err
}
