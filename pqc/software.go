package pqc

import (
	"context"
	"crypto/aes"
	"crypto/cipher"
	"crypto/rand"
	"crypto/subtle"
	"sync"
	"sync/atomic"

	"github.com/cloudflare/circl/kem/mlkem/mlkem1024"
	"github.com/cloudflare/circl/kem/mlkem/mlkem512"
	"github.com/cloudflare/circl/kem/mlkem/mlkem768"
	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"
	"github.com/cloudflare/circl/sign/slhdsa"
	"golang.org/x/crypto/chacha20poly1305"

	"quantavirt/internal/qverr"
	keep "quantavirt/internal/secret"
)

// software is the provider without a card.
type software struct {
	engines engines
	closed  atomic.Pointer[error]      // why it serves no more
	tested  map[Algorithm]func() error // the known-answer test of each algorithm, run once
	random  func(p []byte)             // the kernel's generator
}

// engines are the implementations that software runs. A test replaces one by
// one that is wrong.
type engines struct {
	kem  map[Algorithm]kemEngine
	sign map[Algorithm]signEngine
	aead map[Algorithm]func(key []byte) (cipher.AEAD, error)
}

func defaultEngines() engines {
	return engines{
		kem: map[Algorithm]kemEngine{
			MLKEM512:  newMLKEM(mlkem512.PublicKeySize, mlkem512.NewKeyFromSeed),
			MLKEM768:  newMLKEM(mlkem768.PublicKeySize, mlkem768.NewKeyFromSeed),
			MLKEM1024: newMLKEM(mlkem1024.PublicKeySize, mlkem1024.NewKeyFromSeed),
		},
		sign: map[Algorithm]signEngine{
			MLDSA44:    newMLDSA(4+4, 2, mldsa44.NewKeyFromSeed, sign44, verify44),
			MLDSA65:    newMLDSA(6+5, 4, mldsa65.NewKeyFromSeed, sign65, verify65),
			MLDSA87:    newMLDSA(8+7, 2, mldsa87.NewKeyFromSeed, sign87, verify87),
			SLHDSA128s: newSLHDSA(slhdsa.SHA2_128s, 16),
			SLHDSA128f: newSLHDSA(slhdsa.SHA2_128f, 16),
			SLHDSA192s: newSLHDSA(slhdsa.SHA2_192s, 24),
			SLHDSA192f: newSLHDSA(slhdsa.SHA2_192f, 24),
			SLHDSA256s: newSLHDSA(slhdsa.SHA2_256s, 32),
			SLHDSA256f: newSLHDSA(slhdsa.SHA2_256f, 32),
		},
		aead: map[Algorithm]func([]byte) (cipher.AEAD, error){
			AES256GCM: func(key []byte) (cipher.AEAD, error) {
				block, err := aes.NewCipher(key)
				if err != nil {
					return nil, err
				}
				return cipher.NewGCM(block)
			},
			ChaCha20Poly1305: chacha20poly1305.New,
		},
	}
}

// newSoftware runs the power-up tests: PQCSelfTest if one fails.
func newSoftware(e engines) (*software, error) {
	s := &software{engines: e, tested: make(map[Algorithm]func() error), random: func(p []byte) { _, _ = rand.Read(p) }} // never fails
	for _, answer := range answers {
		s.tested[answer.algorithm] = sync.OnceValue(func() error { return answer.check(s) })
	}
	for _, answer := range answers {
		if answer.slow {
			continue
		}
		if err := s.test(answer.algorithm); err != nil {
			return nil, err
		}
	}
	return s, nil
}

// test runs the known-answer test of an algorithm unless it has been run. A
// failure closes the provider.
func (s *software) test(a Algorithm) error {
	if err := s.tested[a](); err != nil {
		return s.fail(qverr.New(qverr.PQCSelfTest, "%s in software gives a wrong known answer: %w", a, err))
	}
	return nil
}

// fail closes the provider.
func (s *software) fail(err error) error {
	s.closed.CompareAndSwap(nil, &err)
	return err
}

// Name is "software".
func (s *software) Name() string { return "software" }

// Healthy is PQCSelfTest after a failed self-test.
func (s *software) Healthy() error {
	if err := s.closed.Load(); err != nil {
		return *err
	}
	return nil
}

// Supports tells whether a is in the table.
func (s *software) Supports(a Algorithm) bool {
	_, err := a.Params()
	return err == nil
}

// use is what every operation begins with: the algorithm belongs to the family
// and its test has passed.
func (s *software) use(f Family, a Algorithm) (Params, error) {
	p, err := f.of(a)
	if err != nil {
		return p, err
	}
	if err := s.Healthy(); err != nil {
		return p, err
	}
	return p, s.test(a)
}

// Random fills p from the kernel's generator.
func (s *software) Random(_ context.Context, p []byte) error {
	if err := s.Healthy(); err != nil {
		return err
	}
	s.random(p)
	return nil
}

// GenerateKey makes a key pair.
func (s *software) GenerateKey(ctx context.Context, a Algorithm, seed, public, secret []byte) error {
	p, err := a.pair()
	if err != nil {
		return err
	}
	if _, err := s.use(p.Family, a); err != nil {
		return err
	}
	if err := p.checkPair(seed, public, secret); err != nil {
		return err
	}
	fresh := seed == nil
	if fresh {
		seed = make([]byte, p.Seed)
		defer clear(seed)
		s.random(seed)
	}
	derive := s.engines.kem[a].derive
	if p.Family == FamilySignature {
		derive = s.engines.sign[a].derive
	}
	keep.Do(func() { err = derive(seed, public, secret) })
	if err != nil {
		return qverr.New(qverr.PQCKeygen, "generate an %s key: %w", a, err)
	}
	if !fresh {
		return nil
	}
	if err := pairwise(ctx, s, p, public, secret); err != nil {
		clear(public)
		clear(secret)
		return s.fail(qverr.New(qverr.PQCSelfTest, "the halves of a new %s key do not belong together: %w", a, err))
	}
	return nil
}

// PublicKey is the public key of a secret key.
func (s *software) PublicKey(ctx context.Context, a Algorithm, secret []byte) ([]byte, error) {
	p, err := a.pair()
	if err != nil {
		return nil, err
	}
	public := s.engines.kem[a].public
	if p.Family == FamilySignature {
		public = s.engines.sign[a].public
	}
	if _, err := s.use(p.Family, a); err != nil {
		return nil, err
	}
	switch len(secret) {
	case p.SecretKey:
		out, err := public(secret)
		if err == nil && (a < SLHDSA128s || a > SLHDSA256f) { // where nothing was believed
			err = pairwise(ctx, s, p, out, secret)
		}
		if err != nil {
			return nil, qverr.New(qverr.PQCKeygen, "%s secret key: %w", a, err)
		}
		return out, nil
	case p.Seed:
		out, expanded := make([]byte, p.PublicKey), make([]byte, p.SecretKey)
		defer clear(expanded)
		return out, s.GenerateKey(ctx, a, secret, out, expanded)
	}
	return nil, qverr.New(qverr.PQCKeygen, "%s secret key of %d bytes, want %d or a seed of %d", a, len(secret), p.SecretKey, p.Seed)
}

// pairwise is the conditional test of FIPS 140-3, section 7.10.3: what one half of
// a new key pair makes, the other opens.
func pairwise(ctx context.Context, s Provider, p Params, public, secret []byte) error {
	if p.Family == FamilySignature {
		return pairwiseSign(ctx, s, p, public, secret)
	}
	e, err := s.Encapsulator(ctx, p.Algorithm, public)
	if err != nil {
		return err
	}
	d, err := s.Decapsulator(ctx, p.Algorithm, secret)
	if err != nil {
		return err
	}
	defer d.Destroy()
	ciphertext, want, got := make([]byte, p.Output), make([]byte, p.Shared), make([]byte, p.Shared)
	defer clear(want)
	defer clear(got)
	if err := e.Encapsulate(ctx, ciphertext, want); err != nil {
		return err
	}
	if err := d.Decapsulate(ctx, got, ciphertext); err != nil {
		return err
	}
	if subtle.ConstantTimeCompare(want, got) != 1 {
		return qverr.New(qverr.PQCDecaps, "the shared keys differ")
	}
	return nil
}

func pairwiseSign(ctx context.Context, s Provider, p Params, public, secret []byte) error {
	signer, err := s.Signer(ctx, p.Algorithm, secret)
	if err != nil {
		return err
	}
	defer signer.Destroy()
	verifier, err := s.Verifier(ctx, p.Algorithm, public)
	if err != nil {
		return err
	}
	signature, message := make([]byte, p.Output), []byte("quantavirt: pairwise test")
	if err := signer.Sign(ctx, signature, message, nil); err != nil {
		return err
	}
	return verifier.Verify(ctx, message, signature, nil)
}
