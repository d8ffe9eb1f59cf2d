package pqc

import (
	"context"
	"crypto/cipher"

	"quantavirt/internal/qverr"
	keep "quantavirt/internal/secret"
)

// AEAD loads a key.
func (s *software) AEAD(_ context.Context, a Algorithm, key []byte) (AEAD, error) {
	p, err := s.use(FamilyAEAD, a)
	if err != nil {
		return nil, err
	}
	if len(key) != p.SecretKey {
		return nil, qverr.New(qverr.PQCEncrypt, "%s key of %d bytes, want %d", a, len(key), p.SecretKey)
	}
	var c cipher.AEAD
	keep.Do(func() { c, err = s.engines.aead[a](key) })
	if err != nil {
		return nil, qverr.New(qverr.PQCEncrypt, "%s key: %w", a, err)
	}
	return &softAEAD{s, p, c}, nil
}

type softAEAD struct {
	s      *software
	p      Params
	cipher cipher.AEAD // nil after Destroy
}

func (k *softAEAD) check(code qverr.Code, nonce []byte) error {
	if err := k.s.Healthy(); err != nil {
		return err
	}
	if k.cipher == nil {
		return destroyed(code)
	}
	if len(nonce) != k.p.Nonce {
		return qverr.New(code, "%s nonce of %d bytes, want %d", k.p.Name, len(nonce), k.p.Nonce)
	}
	return nil
}

func (k *softAEAD) Seal(_ context.Context, dst, nonce, plaintext, additional []byte) ([]byte, error) {
	if err := k.check(qverr.PQCEncrypt, nonce); err != nil {
		return nil, err
	}
	return k.cipher.Seal(dst, nonce, plaintext, additional), nil
}

func (k *softAEAD) Open(_ context.Context, dst, nonce, ciphertext, additional []byte) ([]byte, error) {
	if err := k.check(qverr.PQCDecrypt, nonce); err != nil {
		return nil, err
	}
	out, err := k.cipher.Open(dst, nonce, ciphertext, additional)
	if err != nil {
		return nil, qverr.New(qverr.PQCDecrypt, "open with %s: %w", k.p.Name, err)
	}
	return out, nil
}

func (k *softAEAD) Destroy() {
	wipe(k.cipher)
	k.cipher = nil
}
