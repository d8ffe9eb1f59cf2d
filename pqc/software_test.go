package pqc

import (
	"bytes"
	"crypto/mlkem"
	"encoding/json"
	"errors"
	"reflect"
	"testing"
	"unsafe"

	"quantavirt/internal/qverr"
)

func generate(t testing.TB, p Provider, a Algorithm) (public, secret []byte) {
	t.Helper()
	s, err := a.Params()
	if err != nil {
		t.Fatal(err)
	}
	public, secret = make([]byte, s.PublicKey), make([]byte, s.SecretKey)
	if err := p.GenerateKey(t.Context(), a, nil, public, secret); err != nil {
		t.Fatal(err)
	}
	return public, secret
}

// The software's keys and ciphertexts mean the same to the standard library's
// implementation, which shares no code with circl.
func TestSoftwareAgainstStandardLibrary(t *testing.T) {
	ctx, p := t.Context(), testSoftware(t)
	peer, err := mlkem.GenerateKey768()
	if err != nil {
		t.Fatal(err)
	}
	e, err := p.Encapsulator(ctx, MLKEM768, peer.EncapsulationKey().Bytes())
	if err != nil {
		t.Fatal(err)
	}
	ciphertext, shared := make([]byte, 1088), make([]byte, 32)
	if err := e.Encapsulate(ctx, ciphertext, shared); err != nil {
		t.Fatal(err)
	}
	if got, err := peer.Decapsulate(ciphertext); err != nil || !bytes.Equal(got, shared) {
		t.Fatalf("the peer decapsulates %x, %v; want %x", got, err, shared)
	}

	public, secret := generate(t, p, MLKEM768)
	ek, err := mlkem.NewEncapsulationKey768(public)
	if err != nil {
		t.Fatal(err)
	}
	d, err := p.Decapsulator(ctx, MLKEM768, secret)
	if err != nil {
		t.Fatal(err)
	}
	want, ciphertext := ek.Encapsulate()
	if err := d.Decapsulate(ctx, shared, ciphertext); err != nil || !bytes.Equal(shared, want) {
		t.Fatalf("decapsulated %x, %v; want %x", shared, err, want)
	}
	ciphertext[0] ^= 1
	if err := d.Decapsulate(ctx, shared, ciphertext); err != nil || bytes.Equal(shared, want) {
		t.Errorf("a changed ciphertext gives %x, %v; want another key and no error", shared, err)
	}
}

// Fresh keys, signatures and ciphertexts differ each time, and deterministic signatures do not.
func TestRandomness(t *testing.T) {
	ctx, p := t.Context(), testSoftware(t)
	for _, a := range []Algorithm{MLDSA44, SLHDSA128f} {
		s, _ := a.Params()
		public, secret := generate(t, p, a)
		if other, _ := generate(t, p, a); bytes.Equal(public, other) {
			t.Errorf("%s: the same key twice", a)
		}
		signer, err := p.Signer(ctx, a, secret)
		if err != nil {
			t.Fatal(err)
		}
		sign := func(o *SignOptions) []byte {
			signature := make([]byte, s.Output)
			if err := signer.Sign(ctx, signature, []byte("message"), o); err != nil {
				t.Fatal(err)
			}
			return signature
		}
		if bytes.Equal(sign(nil), sign(nil)) {
			t.Errorf("%s: a hedged signature twice", a)
		}
		if o := (&SignOptions{Deterministic: true}); !bytes.Equal(sign(o), sign(o)) {
			t.Errorf("%s: deterministic signatures differ", a)
		}
	}
	public, _ := generate(t, p, MLKEM512)
	e, err := p.Encapsulator(ctx, MLKEM512, public)
	if err != nil {
		t.Fatal(err)
	}
	var ciphertext [2][768]byte
	var shared [2][32]byte
	for i := range 2 {
		if err := e.Encapsulate(ctx, ciphertext[i][:], shared[i][:]); err != nil {
			t.Fatal(err)
		}
	}
	if ciphertext[0] == ciphertext[1] || shared[0] == shared[1] {
		t.Error("a ciphertext or a shared key twice")
	}
}

// What is wrong with an input is refused with the code of the operation, by
// software and by the card alike.
func TestBadInput(t *testing.T) {
	forProviders(t, MLKEM768, func(v *vectors) {
		for name, c := range badInputs(v.T, v.p) {
			if !v.p.Supports(c.a) {
				continue
			}
			if got := qverr.CodeOf(c.call()); got != c.want {
				v.Errorf("%s: code %d, want %d", name, got, c.want)
			}
			v.count.add(c.a.String(), "refusals")
		}
	})
}

type badInput struct {
	a    Algorithm
	want qverr.Code
	call func() error
}

func badInputs(t *testing.T, p Provider) map[string]badInput {
	ctx := t.Context()
	public, secret := generate(t, testSoftware(t), MLKEM768)
	verifying, signing := generate(t, testSoftware(t), MLDSA65)
	notReduced := bytes.Clone(public)
	copy(notReduced, []byte{0xFF, 0xFF, 0xFF}) // coefficients above q
	wrongHash := bytes.Clone(secret)
	wrongHash[len(wrongHash)-40] ^= 1 // H(ek) inside dk
	encapsulate := func(public []byte, ciphertext, shared int) func() error {
		return func() error {
			e, err := p.Encapsulator(ctx, MLKEM768, public)
			if err != nil {
				return err
			}
			return e.Encapsulate(ctx, make([]byte, ciphertext), make([]byte, shared))
		}
	}
	decapsulate := func(secret []byte, ciphertext, shared int) func() error {
		return func() error {
			d, err := p.Decapsulator(ctx, MLKEM768, secret)
			if err != nil {
				return err
			}
			return d.Decapsulate(ctx, make([]byte, shared), make([]byte, ciphertext))
		}
	}
	sign := func(secret []byte, size int, o *SignOptions) func() error {
		return func() error {
			s, err := p.Signer(ctx, MLDSA65, secret)
			if err != nil {
				return err
			}
			return s.Sign(ctx, make([]byte, size), nil, o)
		}
	}
	verify := func(public []byte, size int, o *SignOptions) func() error {
		return func() error {
			w, err := p.Verifier(ctx, MLDSA65, public)
			if err != nil {
				return err
			}
			return w.Verify(ctx, nil, make([]byte, size), o)
		}
	}
	aead := func(key, nonce, ciphertext int) func() error {
		return func() error {
			k, err := p.AEAD(ctx, AES256GCM, make([]byte, key))
			if err != nil {
				return err
			}
			_, err = k.Open(ctx, nil, make([]byte, nonce), make([]byte, ciphertext), nil)
			return err
		}
	}
	long := &SignOptions{Context: make([]byte, 256)}
	return map[string]badInput{
		"short public key":              {MLKEM768, qverr.PQCEncaps, encapsulate(public[1:], 1088, 32)},
		"public key out of range":       {MLKEM768, qverr.PQCEncaps, encapsulate(notReduced, 1088, 32)},
		"no public key":                 {MLKEM768, qverr.PQCEncaps, encapsulate(nil, 1088, 32)},
		"no room for the ciphertext":    {MLKEM768, qverr.PQCEncaps, encapsulate(public, 1087, 32)},
		"no room for the shared key":    {MLKEM768, qverr.PQCEncaps, encapsulate(public, 1088, 31)},
		"short secret key":              {MLKEM768, qverr.PQCDecaps, decapsulate(secret[1:], 1088, 32)},
		"secret key with a wrong hash":  {MLKEM768, qverr.PQCDecaps, decapsulate(wrongHash, 1088, 32)},
		"long ciphertext":               {MLKEM768, qverr.PQCDecaps, decapsulate(secret, 1089, 32)},
		"room for a longer shared key":  {MLKEM768, qverr.PQCDecaps, decapsulate(secret, 1088, 33)},
		"short signing key":             {MLDSA65, qverr.PQCSign, sign(signing[1:], 3309, nil)},
		"no room for the signature":     {MLDSA65, qverr.PQCSign, sign(signing, 3308, nil)},
		"signing with a long context":   {MLDSA65, qverr.PQCParamSet, sign(signing, 3309, long)},
		"signing with a weak hash":      {MLDSA65, qverr.PQCParamSet, sign(signing, 3309, &SignOptions{Hash: SHA256})},
		"signing with a cipher as hash": {MLDSA65, qverr.PQCParamSet, sign(signing, 3309, &SignOptions{Hash: AES256GCM})},
		"short verification key":        {MLDSA65, qverr.PQCVerify, verify(verifying[1:], 3309, nil)},
		"short signature":               {MLDSA65, qverr.PQCVerify, verify(verifying, 3308, nil)},
		"a signature of zeros":          {MLDSA65, qverr.PQCVerify, verify(verifying, 3309, nil)},
		"verifying with a long context": {MLDSA65, qverr.PQCParamSet, verify(verifying, 3309, long)},
		"short cipher key":              {AES256GCM, qverr.PQCEncrypt, aead(31, 12, 16)},
		"short nonce":                   {AES256GCM, qverr.PQCDecrypt, aead(32, 11, 16)},
		"ciphertext without a tag":      {AES256GCM, qverr.PQCDecrypt, aead(32, 12, 15)},
		"a tag of zeros":                {AES256GCM, qverr.PQCDecrypt, aead(32, 12, 16)},
		"a short seed": {MLKEM768, qverr.PQCKeygen, func() error {
			return p.GenerateKey(ctx, MLKEM768, make([]byte, 63), make([]byte, 1184), make([]byte, 2400))
		}},
		"no room for the key": {MLKEM768, qverr.PQCKeygen, func() error {
			return p.GenerateKey(ctx, MLKEM768, nil, make([]byte, 1184), make([]byte, 2399))
		}},
		"a KEM that signs": {MLKEM768, qverr.PQCAlgorithm, func() error { _, err := p.Signer(ctx, MLKEM768, secret); return err }},
		"an unknown KEM":   {MLKEM768, qverr.PQCAlgorithm, func() error { _, err := p.Encapsulator(ctx, 0x1199, public); return err }},
		"a key of a hash":  {MLKEM768, qverr.PQCAlgorithm, func() error { return p.GenerateKey(ctx, SHA3_256, nil, nil, nil) }},
	}
}

// An expanded ML-DSA key with a coefficient of s1 or s2 out of range is refused by
// its name, wherever it comes in: each 0xFF is one in every set.
func TestMLDSAKeyRange(t *testing.T) {
	sizes := map[Algorithm]int{MLDSA44: 8 * 96, MLDSA65: 11 * 128, MLDSA87: 15 * 96} // bytes of s1 and s2
	forProviders(t, MLDSA44, func(v *vectors) {
		for a, size := range sizes {
			_, secret := generate(v.T, testSoftware(v.T), a)
			for _, at := range []int{0, size / 2, size - 1} {
				bad := bytes.Clone(secret)
				bad[128+at] = 0xFF
				_, err := v.p.Signer(v.Context(), a, bad)
				if !errors.Is(err, qverr.PQCSign) || !errors.Is(err, errRange) {
					v.Errorf("%s signs with byte %d out of range: %v", a, at, err)
				}
				if _, err := v.p.PublicKey(v.Context(), a, bad); !errors.Is(err, errRange) {
					v.Errorf("%s with byte %d out of range has a public key: %v", a, at, err)
				}
				v.count.add(a.String(), "refusals")
			}
		}
	})
}

func TestKDFLimits(t *testing.T) {
	p := testSoftware(t)
	for size, want := range map[int]qverr.Code{0: qverr.PQCKDF, 1: qverr.Success, 255 * 32: qverr.Success, 255*32 + 1: qverr.PQCKDF} {
		if err := p.KDF(HKDFSHA3_256, make([]byte, size), []byte("secret"), nil, nil); qverr.CodeOf(err) != want {
			t.Errorf("%d bytes: %v", size, err)
		}
	}
	if _, err := p.Hash(SHAKE128); qverr.CodeOf(err) != qverr.PQCAlgorithm {
		t.Errorf("SHAKE as a hash: %v", err)
	}
}

// Destroy leaves no secret in the loaded key, and the key of no use.
func TestDestroy(t *testing.T) {
	ctx, s := t.Context(), testSoftware(t)
	for _, p := range table {
		if p.SecretKey == 0 || p.Algorithm == SLHDSA192s || p.Algorithm == SLHDSA256s {
			continue
		}
		secret := bytes.Repeat([]byte{0xA5}, p.SecretKey)
		if p.Family != FamilyAEAD {
			_, secret = generate(t, s, p.Algorithm)
		}
		var key any
		var destroy func()
		var use func() error
		switch p.Family {
		case FamilyKEM:
			d, err := s.Decapsulator(ctx, p.Algorithm, secret)
			if err != nil {
				t.Fatal(err)
			}
			key, destroy = d.(*softDecapsulator).key.secret, d.Destroy
			use = func() error { return d.Decapsulate(ctx, make([]byte, p.Shared), make([]byte, p.Output)) }
		case FamilySignature:
			d, err := s.Signer(ctx, p.Algorithm, secret)
			if err != nil {
				t.Fatal(err)
			}
			key, destroy = d.(*softSigner).key.secret, d.Destroy
			use = func() error { return d.Sign(ctx, make([]byte, p.Output), nil, nil) }
		case FamilyAEAD:
			d, err := s.AEAD(ctx, p.Algorithm, secret)
			if err != nil {
				t.Fatal(err)
			}
			key, destroy = d.(*softAEAD).cipher, d.Destroy
			use = func() error { _, err := d.Open(ctx, nil, make([]byte, 12), make([]byte, 16), nil); return err }
		}
		if n := nonZero(reflect.ValueOf(key)); n < 16 {
			t.Fatalf("%s: a loaded key has %d bytes that are not 0", p.Name, n)
		}
		destroy()
		if n := nonZero(reflect.ValueOf(key)); n != 0 {
			t.Errorf("%s: %d bytes are left", p.Name, n)
		}
		if err := use(); err == nil {
			t.Errorf("%s: the key still works", p.Name)
		}
	}
}

// nonZero counts the bytes of all memory that v leads to, unlike wipe by kinds
// of its own.
func nonZero(v reflect.Value) (n int) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			return nonZero(v.Elem())
		}
	case reflect.Struct:
		for i := range v.NumField() {
			n += nonZero(v.Field(i))
		}
	case reflect.Slice, reflect.Array:
		for i := range v.Len() {
			n += nonZero(v.Index(i))
		}
	default:
		if v.CanAddr() {
			for _, b := range unsafe.Slice((*byte)(v.Addr().UnsafePointer()), v.Type().Size()) {
				if b != 0 {
					n++
				}
			}
		}
	}
	return n
}

func TestAlgorithmNames(t *testing.T) {
	for _, p := range table {
		text, err := json.Marshal(map[string]Algorithm{"a": p.Algorithm})
		var back map[string]Algorithm
		if err != nil || json.Unmarshal(text, &back) != nil || back["a"] != p.Algorithm || string(text) != `{"a":"`+p.Name+`"}` {
			t.Errorf("%s becomes %s and %v", p.Name, text, back)
		}
	}
	if _, err := ParseAlgorithm("ml-kem-768"); qverr.CodeOf(err) != qverr.PQCAlgorithm {
		t.Errorf("a wrong name: %v", err)
	}
	if _, err := json.Marshal(Algorithm(1)); err == nil {
		t.Error("an unknown algorithm has a name")
	}
}
