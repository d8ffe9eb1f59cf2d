package pqc

import (
	"bytes"
	"context"
	"crypto/cipher"
	"testing"

	"quantavirt/internal/qverr"
)

// corrupt is an implementation that is wrong in one way each.
func corrupt(a Algorithm) map[string]engines {
	out := make(map[string]engines)
	with := func(name string, change func(e *engines)) {
		e := defaultEngines()
		change(&e)
		out[name] = e
	}
	p, _ := a.Params()
	switch p.Family {
	case FamilyKEM:
		with("key generation", func(e *engines) {
			k := e.kem[a]
			derive := k.derive
			k.derive = func(seed, public, secret []byte) error {
				err := derive(seed, public, secret)
				secret[0] ^= 1
				return err
			}
			e.kem[a] = k
		})
		with("rejection", func(e *engines) {
			k := e.kem[a]
			load := k.decapsulator
			k.decapsulator = func(secret []byte) (kemKey, error) {
				key, err := load(secret)
				return kemKey{key.secret, func(shared, ciphertext []byte) { clear(shared) }}, err
			}
			e.kem[a] = k
		})
	case FamilySignature:
		with("verifier that believes everything", func(e *engines) {
			k := e.sign[a]
			k.verifier = func([]byte) (verifyFunc, error) { return func([]byte, encoded) bool { return true }, nil }
			e.sign[a] = k
		})
		with("signature", func(e *engines) {
			k := e.sign[a]
			load := k.signer
			k.signer = func(secret []byte) (signKey, error) {
				key, err := load(secret)
				return signKey{key.secret, func(signature []byte, m encoded, rnd []byte) error {
					err := key.sign(signature, m, rnd)
					signature[0] ^= 1
					return err
				}}, err
			}
			e.sign[a] = k
		})
	case FamilyAEAD:
		with("tag", func(e *engines) {
			load := e.aead[a]
			e.aead[a] = func(key []byte) (cipher.AEAD, error) {
				c, err := load(key)
				return wrongTag{c}, err
			}
		})
	}
	return out
}

// wrongTag seals with another tag, and takes it.
type wrongTag struct{ cipher.AEAD }

func (w wrongTag) Seal(dst, nonce, plaintext, additional []byte) []byte {
	out := w.AEAD.Seal(dst, nonce, plaintext, additional)
	out[len(out)-1] ^= 1
	return out
}

func (w wrongTag) Open(dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	c := bytes.Clone(ciphertext)
	c[len(c)-1] ^= 1
	return w.AEAD.Open(dst, nonce, c, additional)
}

// An implementation that is wrong never serves: the power-up test or the test
// before the first use finds it, and the provider stays closed.
func TestSelfTest(t *testing.T) {
	for _, answer := range answers {
		for name, e := range corrupt(answer.algorithm) {
			s, err := newSoftware(e)
			if !answer.slow {
				if qverr.CodeOf(err) != qverr.PQCSelfTest {
					t.Errorf("%s, wrong %s: %v", answer.algorithm, name, err)
				}
				continue
			}
			if err != nil || s.Healthy() != nil {
				t.Fatalf("%s is tested before its first use only: %v", answer.algorithm, err)
			}
			p, _ := answer.algorithm.Params()
			_, err = s.Verifier(t.Context(), answer.algorithm, make([]byte, p.PublicKey))
			if qverr.CodeOf(err) != qverr.PQCSelfTest || qverr.CodeOf(s.Healthy()) != qverr.PQCSelfTest {
				t.Errorf("%s, wrong %s: %v", answer.algorithm, name, err)
			}
			closedEverywhere(t, s)
			if testing.Short() || !full() {
				break // one fault of each slow set
			}
		}
	}
}

// closedEverywhere checks that no operation is served any more.
func closedEverywhere(t *testing.T, s *software) {
	t.Helper()
	ctx := context.Background()
	for name, call := range map[string]func() error{
		"random":       func() error { return s.Random(ctx, make([]byte, 1)) },
		"keys":         func() error { return s.GenerateKey(ctx, MLKEM768, nil, make([]byte, 1184), make([]byte, 2400)) },
		"encapsulator": func() error { _, err := s.Encapsulator(ctx, MLKEM768, make([]byte, 1184)); return err },
		"decapsulator": func() error { _, err := s.Decapsulator(ctx, MLKEM768, make([]byte, 64)); return err },
		"signer":       func() error { _, err := s.Signer(ctx, MLDSA44, make([]byte, 32)); return err },
		"verifier":     func() error { _, err := s.Verifier(ctx, MLDSA44, make([]byte, 1312)); return err },
		"aead":         func() error { _, err := s.AEAD(ctx, AES256GCM, make([]byte, 32)); return err },
		"hash":         func() error { _, err := s.Hash(SHA3_256); return err },
		"xof":          func() error { _, err := s.XOF(SHAKE128); return err },
		"kdf":          func() error { return s.KDF(HKDFSHA3_256, make([]byte, 1), nil, nil, nil) },
	} {
		if err := call(); qverr.CodeOf(err) != qverr.PQCSelfTest {
			t.Errorf("%s after a failed self-test: %v", name, err)
		}
	}
}

// A new pair whose halves do not belong together is not handed out, and keys
// that were loaded before work no more.
func TestPairwise(t *testing.T) {
	for _, a := range []Algorithm{MLKEM512, MLKEM768, MLKEM1024, MLDSA44, MLDSA65, MLDSA87, SLHDSA128f} {
		e := defaultEngines()
		s, err := newSoftware(e)
		if err != nil {
			t.Fatal(err)
		}
		p, _ := a.Params()
		aead, err := s.AEAD(t.Context(), AES256GCM, make([]byte, 32))
		if err != nil {
			t.Fatal(err)
		}
		spoil := func(derive func(seed, public, secret []byte) error) func(seed, public, secret []byte) error {
			other := make([]byte, p.PublicKey)
			if err := derive(counting(p.Seed), other, make([]byte, p.SecretKey)); err != nil {
				t.Fatal(err)
			}
			return func(seed, public, secret []byte) error {
				err := derive(seed, public, secret)
				copy(public, other)
				return err
			}
		}
		if err := s.test(a); err != nil { // the known answer is right; only what comes later is not
			t.Fatal(err)
		}
		if p.Family == FamilyKEM {
			k := e.kem[a]
			k.derive = spoil(k.derive)
			e.kem[a] = k
		} else {
			k := e.sign[a]
			k.derive = spoil(k.derive)
			e.sign[a] = k
		}
		public, secret := make([]byte, p.PublicKey), make([]byte, p.SecretKey)
		err = s.GenerateKey(t.Context(), a, nil, public, secret)
		if qverr.CodeOf(err) != qverr.PQCSelfTest || !bytes.Equal(secret, make([]byte, p.SecretKey)) {
			t.Errorf("%s: %v", a, err)
		}
		closedEverywhere(t, s)
		if _, err := aead.Seal(t.Context(), nil, make([]byte, 12), nil, nil); qverr.CodeOf(err) != qverr.PQCSelfTest {
			t.Errorf("%s: a key loaded before still works: %v", a, err)
		}
	}
}
