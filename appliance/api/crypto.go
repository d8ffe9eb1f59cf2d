package api

import (
	"net/http"

	"quantavirt/appliance/api/spec"
)

// GetQRNG shows where randomness comes from.
func (s *Server) GetQRNG(w http.ResponseWriter, r *http.Request) {
	q, err := s.Crypto.QRNG(r.Context())
	s.answer(w, r, http.StatusOK, q, err)
}

// ReadRandom reads randomness.
func (s *Server) ReadRandom(w http.ResponseWriter, r *http.Request, params spec.ReadRandomParams) {
	b, err := s.Crypto.Random(r.Context(), params.Bytes)
	s.answer(w, r, http.StatusOK, b, err)
}

// GetQUAC100 shows the cards.
func (s *Server) GetQUAC100(w http.ResponseWriter, r *http.Request) {
	q, err := s.Crypto.Cards(r.Context())
	s.answer(w, r, http.StatusOK, q, err)
}

// TestQUAC100 runs a card's self-tests.
func (s *Server) TestQUAC100(w http.ResponseWriter, r *http.Request, address string) {
	c, err := s.Crypto.TestCard(r.Context(), address)
	s.answer(w, r, http.StatusOK, c, err)
}

// ResetQUAC100 resets a card.
func (s *Server) ResetQUAC100(w http.ResponseWriter, r *http.Request, address string) {
	c, err := s.Crypto.ResetCard(r.Context(), address)
	s.answer(w, r, http.StatusOK, c, err)
}

// GetQUAC100Stats shows what the driver counted.
func (s *Server) GetQUAC100Stats(w http.ResponseWriter, r *http.Request, address string) {
	st, err := s.Crypto.CardStats(r.Context(), address)
	s.answer(w, r, http.StatusOK, st, err)
}

// UpdateQUAC100 gives a card new firmware.
func (s *Server) UpdateQUAC100(w http.ResponseWriter, r *http.Request, address string, params spec.UpdateQUAC100Params) {
	body, err := s.upload(w, r)
	var t spec.Task
	if err == nil {
		t, err = s.Crypto.UpdateCard(r.Context(), address, body, requestOf(r).id)
	}
	s.accepted(w, r, t, params.Wait, err)
}

// BenchCrypto measures the provider.
func (s *Server) BenchCrypto(w http.ResponseWriter, r *http.Request) {
	var in spec.BenchRequest
	decoded(s, w, r, "BenchRequest", &in, http.StatusOK, func() (any, error) { return s.Crypto.Bench(r.Context(), in) })
}

// decoded is a handler with a JSON body.
func decoded(s *Server, w http.ResponseWriter, r *http.Request, schema string, in any, status int, do func() (any, error)) {
	if err := s.decode(w, r, schema, false, in); err != nil {
		s.fail(w, r, err)
		return
	}
	out, err := do()
	s.answer(w, r, status, out, err)
}

// GetKeystore shows how the keystore is.
func (s *Server) GetKeystore(w http.ResponseWriter, r *http.Request) {
	k, err := s.Crypto.KeystoreStatus(r.Context())
	s.answer(w, r, http.StatusOK, k, err)
}

// InitKeystore makes a keystore.
func (s *Server) InitKeystore(w http.ResponseWriter, r *http.Request) {
	var in spec.KeystoreInit
	decoded(s, w, r, "KeystoreInit", &in, http.StatusCreated, func() (any, error) { return s.Crypto.InitKeystore(r.Context(), in) })
}

// UnlockKeystore opens the keystore.
func (s *Server) UnlockKeystore(w http.ResponseWriter, r *http.Request) {
	var in spec.KeystoreUnlock
	decoded(s, w, r, "KeystoreUnlock", &in, http.StatusOK, func() (any, error) { return s.Crypto.UnlockKeystore(r.Context(), in) })
}

// SetKeystorePassphrase sets the keystore's passphrase.
func (s *Server) SetKeystorePassphrase(w http.ResponseWriter, r *http.Request) {
	var in spec.KeystorePassphrase
	decoded(s, w, r, "KeystorePassphrase", &in, http.StatusOK, func() (any, error) { return s.Crypto.SetKeystorePassphrase(r.Context(), in) })
}

// ListKeys never shows secrets.
func (s *Server) ListKeys(w http.ResponseWriter, r *http.Request) {
	list, err := s.Crypto.ListKeys(r.Context())
	s.answer(w, r, http.StatusOK, list, err)
}

// GetKey shows one key.
func (s *Server) GetKey(w http.ResponseWriter, r *http.Request, key string) {
	k, err := s.Crypto.Key(r.Context(), key)
	s.answer(w, r, http.StatusOK, k, err)
}

// GenerateKey makes a key pair.
func (s *Server) GenerateKey(w http.ResponseWriter, r *http.Request) {
	var in spec.KeyGenerate
	decoded(s, w, r, "KeyGenerate", &in, http.StatusCreated, func() (any, error) { return s.Crypto.GenerateKey(r.Context(), in) })
}

// ImportKey brings a private key in.
func (s *Server) ImportKey(w http.ResponseWriter, r *http.Request) {
	var in spec.KeyImport
	decoded(s, w, r, "KeyImport", &in, http.StatusCreated, func() (any, error) { return s.Crypto.ImportKey(r.Context(), in) })
}

// RotateKey makes a new key in the place of one.
func (s *Server) RotateKey(w http.ResponseWriter, r *http.Request, key string) {
	var in spec.KeyRotate
	decoded(s, w, r, "KeyRotate", &in, http.StatusCreated, func() (any, error) { return s.Crypto.RotateKey(r.Context(), key, in) })
}

// ExpireKey says when a key expires.
func (s *Server) ExpireKey(w http.ResponseWriter, r *http.Request, key string) {
	var in spec.KeyExpire
	decoded(s, w, r, "KeyExpire", &in, http.StatusOK, func() (any, error) { return s.Crypto.ExpireKey(r.Context(), key, in) })
}

// DestroyKey wipes a key.
func (s *Server) DestroyKey(w http.ResponseWriter, r *http.Request, key string) {
	s.answer(w, r, http.StatusNoContent, nil, s.Crypto.DestroyKey(r.Context(), key))
}

// ExportKey gives a private key out, in an envelope.
func (s *Server) ExportKey(w http.ResponseWriter, r *http.Request, key string) {
	var in spec.KeyExport
	decoded(s, w, r, "KeyExport", &in, http.StatusOK, func() (any, error) { return s.Crypto.ExportKey(r.Context(), key, in) })
}

// Sign signs the body.
func (s *Server) Sign(w http.ResponseWriter, r *http.Request, key string, params spec.SignParams) {
	sig, err := s.Crypto.Sign(r.Context(), key, params, &stallReader{c: http.NewResponseController(w), r: r.Body})
	s.answer(w, r, http.StatusOK, sig, err)
}

// Decapsulate recovers a shared key, in an envelope.
func (s *Server) Decapsulate(w http.ResponseWriter, r *http.Request, key string) {
	var in spec.Decapsulate
	decoded(s, w, r, "Decapsulate", &in, http.StatusOK, func() (any, error) { return s.Crypto.Decapsulate(r.Context(), key, in) })
}
