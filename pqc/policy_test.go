package pqc

import (
	"bytes"
	"context"
	"strings"
	"sync"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/quac100/model"
)

// spy is a provider that can be told to fail like a card.
type spy struct {
	fakeCard
	err   error // of every operation
	calls int
}

func (s *spy) call() error {
	s.calls++
	return s.err
}

func (s *spy) Random(ctx context.Context, p []byte) error {
	if err := s.call(); err != nil {
		return err
	}
	return s.software.Random(ctx, p)
}

func (s *spy) GenerateKey(ctx context.Context, a Algorithm, seed, public, secret []byte) error {
	if err := s.call(); err != nil {
		return err
	}
	return s.software.GenerateKey(ctx, a, seed, public, secret)
}

func (s *spy) Encapsulator(ctx context.Context, a Algorithm, public []byte) (Encapsulator, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.software.Encapsulator(ctx, a, public)
}

func (s *spy) Decapsulator(ctx context.Context, a Algorithm, secret []byte) (Decapsulator, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.software.Decapsulator(ctx, a, secret)
}

func (s *spy) Signer(ctx context.Context, a Algorithm, secret []byte) (Signer, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.software.Signer(ctx, a, secret)
}

func (s *spy) Verifier(ctx context.Context, a Algorithm, public []byte) (Verifier, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.software.Verifier(ctx, a, public)
}

func (s *spy) AEAD(ctx context.Context, a Algorithm, key []byte) (AEAD, error) {
	if err := s.call(); err != nil {
		return nil, err
	}
	return s.software.AEAD(ctx, a, key)
}

// operations are all those that a card is made for, from nothing to a result
// that is checked.
func operations(t *testing.T, by Provider) map[string]func() error {
	ctx := t.Context()
	public, secret := generate(t, testSoftware(t), MLKEM768)
	verifying, signing := generate(t, testSoftware(t), MLDSA44)
	return map[string]func() error{
		"random": func() error { return by.Random(ctx, make([]byte, 8)) },
		"generate a KEM key": func() error {
			return by.GenerateKey(ctx, MLKEM768, nil, make([]byte, 1184), make([]byte, 2400))
		},
		"generate a signature key": func() error {
			return by.GenerateKey(ctx, MLDSA44, nil, make([]byte, 1312), make([]byte, 2560))
		},
		"encapsulate": func() error {
			e, err := by.Encapsulator(ctx, MLKEM768, public)
			if err != nil {
				return err
			}
			return e.Encapsulate(ctx, make([]byte, 1088), make([]byte, 32))
		},
		"decapsulate": func() error {
			d, err := by.Decapsulator(ctx, MLKEM768, secret)
			if err != nil {
				return err
			}
			defer d.Destroy()
			return d.Decapsulate(ctx, make([]byte, 32), make([]byte, 1088))
		},
		"sign and verify": func() error {
			s, err := by.Signer(ctx, MLDSA44, signing)
			if err != nil {
				return err
			}
			defer s.Destroy()
			v, err := by.Verifier(ctx, MLDSA44, verifying)
			if err != nil {
				return err
			}
			signature := make([]byte, 2420)
			if err := s.Sign(ctx, signature, nil, nil); err != nil {
				return err
			}
			return v.Verify(ctx, nil, signature, nil)
		},
		"seal and open": func() error {
			k, err := by.AEAD(ctx, AES256GCM, make([]byte, 32))
			if err != nil {
				return err
			}
			defer k.Destroy()
			sealed, err := k.Seal(ctx, nil, make([]byte, 12), []byte("text"), nil)
			if err != nil {
				return err
			}
			text, err := k.Open(ctx, nil, make([]byte, 12), sealed, nil)
			if err == nil && string(text) != "text" {
				t.Errorf("opened %q", text)
			}
			return err
		},
	}
}

// Every operation goes to the card, to software when the card cannot, and is
// refused when hardware is required.
func TestPolicyOfEveryOperation(t *testing.T) {
	for name := range operations(t, testSoftware(t)) {
		for _, c := range []struct {
			state   string
			fault   error
			require bool
			want    qverr.Code
		}{
			{"healthy", nil, false, qverr.Success},
			{"healthy, required", nil, true, qverr.Success},
			{"throttled", qverr.New(qverr.QUACOvertemp, "hot"), false, qverr.Success},
			{"full", qverr.New(qverr.QUACRingFull, "full"), false, qverr.Success},
			{"its self-test failed", qverr.New(qverr.QUACSelfTest, "broken"), false, qverr.Success},
			{"a pair was wrong", qverr.New(qverr.PQCSelfTest, "broken"), false, qverr.Success},
			{"throttled, required", qverr.New(qverr.QUACOvertemp, "hot"), true, qverr.PQCFallback},
			{"given up", context.Canceled, false, qverr.CodeOf(context.Canceled)},
		} {
			card := &spy{err: c.fault}
			s, log := newTestService(t, Options{RequireHardware: c.require}, card)
			card.software = s.software
			for range 2 {
				if err := operations(t, s)[name](); qverr.CodeOf(err) != c.want {
					t.Errorf("%s, card %s: %v", name, c.state, err)
				}
			}
			st := s.Status(t.Context())
			fell := c.fault != nil && c.state != "given up"
			if card.calls == 0 || (st.Fallbacks > 0) != fell || (st.SoftwareCalls > 0) != (fell && !c.require) {
				t.Errorf("%s, card %s: %d calls of the card, status %+v", name, c.state, card.calls, st)
			}
			lines := strings.Count(log.String(), "software serves instead")
			if want := fell && !c.require; lines > 1 || (lines == 1) != want || (st.Switches == 1) != want {
				t.Errorf("%s, card %s: %d lines and %d switches:\n%s", name, c.state, lines, st.Switches, log)
			}
		}
	}
}

// What no card is made for is software's, also where hardware is required.
func TestSoftwareOnly(t *testing.T) {
	s, _ := newTestService(t, Options{RequireHardware: true}, nil)
	if _, err := s.Hash(SHA3_256); err != nil {
		t.Error(err)
	}
	if _, err := s.XOF(SHAKE256); err != nil {
		t.Error(err)
	}
	if err := s.KDF(HKDFSHA3_256, make([]byte, 32), []byte("secret"), nil, nil); err != nil {
		t.Error(err)
	}
	if k, err := s.AEAD(t.Context(), ChaCha20Poly1305, make([]byte, 32)); err != nil {
		t.Error(err)
	} else {
		k.Destroy()
	}
	if _, err := s.AEAD(t.Context(), AES256GCM, make([]byte, 32)); qverr.CodeOf(err) != qverr.PQCFallback {
		t.Errorf("AES-256-GCM: %v", err)
	}
}

// The driver on the model and software give each other's results, under the
// policy, while the card goes and comes; a key that is loaded moves along.
func TestCardComesAndGoes(t *testing.T) {
	card, _ := testCard(t, model.Config{})
	s, _ := newTestService(t, Options{}, nil)
	s.card, s.cardErr, s.onCard = card, nil, true
	ctx := t.Context()
	public, secret := generate(t, s, MLDSA65)
	signer, err := s.Signer(ctx, MLDSA65, secret)
	if err != nil {
		t.Fatal(err)
	}
	verifier, err := s.Verifier(ctx, MLDSA65, public)
	if err != nil {
		t.Fatal(err)
	}
	o := &SignOptions{Context: []byte("ctx"), Hash: SHA3_512, Deterministic: true}
	sign := func() []byte {
		signature := make([]byte, 3309)
		if err := signer.Sign(ctx, signature, []byte("message"), o); err != nil {
			t.Fatal(err)
		}
		if err := verifier.Verify(ctx, []byte("message"), signature, o); err != nil {
			t.Fatal(err)
		}
		return signature
	}
	byCard := sign()
	gone := qverr.New(qverr.QUACNotFound, "gone")
	var err1 error = gone
	card.closed.Store(&err1)
	bySoftware := sign()
	card.closed.Store(nil)
	if again := sign(); !bytes.Equal(byCard, bySoftware) || !bytes.Equal(byCard, again) {
		t.Error("card and software sign differently")
	}
	if st := s.Status(ctx); st.Switches != 2 || st.CardCalls == 0 || st.SoftwareCalls == 0 {
		t.Errorf("status %+v", st)
	}
	signer.Destroy()
	if err := signer.Sign(ctx, make([]byte, 3309), nil, nil); qverr.CodeOf(err) != qverr.PQCKeyNotFound {
		t.Errorf("a destroyed key: %v", err)
	}
}

// Many callers share a key.
func TestKeyIsShared(t *testing.T) {
	card, _ := testCard(t, model.Config{})
	s, _ := newTestService(t, Options{}, nil)
	s.card, s.cardErr, s.onCard = card, nil, true
	public, secret := generate(t, s, MLKEM768)
	e, err := s.Encapsulator(t.Context(), MLKEM768, public)
	if err != nil {
		t.Fatal(err)
	}
	d, err := s.Decapsulator(t.Context(), MLKEM768, secret)
	if err != nil {
		t.Fatal(err)
	}
	var callers sync.WaitGroup
	for range 16 {
		callers.Go(func() {
			ciphertext, a, b := make([]byte, 1088), make([]byte, 32), make([]byte, 32)
			for range 20 {
				if err := e.Encapsulate(t.Context(), ciphertext, a); err != nil {
					t.Error(err)
				}
				if err := d.Decapsulate(t.Context(), b, ciphertext); err != nil || !bytes.Equal(a, b) {
					t.Errorf("%x and %x: %v", a, b, err)
				}
			}
		})
	}
	callers.Wait()
}

// Two cards share the work, and one does it alone when the other is gone.
func TestTwoCards(t *testing.T) {
	a, _ := testCard(t, model.Config{})
	b, _ := testCard(t, model.Config{})
	both := newCardProvider(testSoftware(t), a.pool.Cards()[0], b.pool.Cards()[0])
	answered := func() (n [2]uint64) {
		for i, card := range both.pool.Cards() {
			n[i] = card.Stats().OK
		}
		return n
	}
	use := func() {
		for range 10 {
			if err := both.Random(t.Context(), make([]byte, 32)); err != nil {
				t.Fatal(err)
			}
		}
	}
	before := answered()
	use()
	if after := answered(); after[0] == before[0] || after[1] == before[1] {
		t.Errorf("commands of each card: %v, then %v", before, after)
	}
	if err := a.Close(); err != nil {
		t.Fatal(err)
	}
	use()
	if err := both.Healthy(); err != nil {
		t.Error(err)
	}
	if err := b.Close(); err != nil {
		t.Fatal(err)
	}
	if err := both.Healthy(); err == nil {
		t.Error("no card is left, and that is healthy")
	}
}
