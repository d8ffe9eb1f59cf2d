package pqc

import (
	"context"
	"fmt"
	"runtime"
	"time"

	"golang.org/x/sys/unix"
)

// Rate is how often an operation can be done.
type Rate struct {
	Algorithm Algorithm `json:"algorithm"`
	Operation string    `json:"operation"`
	// PerSecond counts operations per second of processor time of one thread,
	// or of the clock where the work is done elsewhere.
	PerSecond float64 `json:"per_second"`
	Bytes     int     `json:"bytes,omitempty"` // that one operation works on, where that matters
}

// BenchSize is what ciphers and hashes work on at a time, in bytes.
const BenchSize = 16384

// Bench measures every operation of some algorithms on a provider, each for a
// duration, and reports one after the other.
func Bench(ctx context.Context, by Provider, algorithms []Algorithm, each time.Duration, report func(Rate)) error {
	clock := threadTime
	if by.Name() != "software" {
		started := time.Now()
		clock = func() time.Duration { return time.Since(started) }
	}
	for _, a := range algorithms {
		p, err := a.Params()
		if err != nil {
			return err
		}
		if !by.Supports(a) {
			continue
		}
		operations, err := benchOperations(ctx, by, p)
		if err != nil {
			return err
		}
		for _, o := range operations {
			n, err := repeat(ctx, each, clock, o.run)
			if err != nil {
				return fmt.Errorf("%s, %s: %w", a, o.name, err)
			}
			report(Rate{a, o.name, n, o.bytes})
		}
	}
	return nil
}

type benchOperation struct {
	name  string
	bytes int
	run   func() error
}

// Repeat runs call for a duration of this thread's processor time, and returns
// how often that is in a second. That is what is left of a busy machine.
func Repeat(ctx context.Context, each time.Duration, call func() error) (perSecond float64, err error) {
	return repeat(ctx, each, threadTime, call)
}

func repeat(ctx context.Context, each time.Duration, clock func() time.Duration, call func() error) (perSecond float64, err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	started := clock()
	for n, batch := 0, 1; ; batch *= 2 {
		for range batch {
			if err := call(); err != nil {
				return 0, err
			}
		}
		n += batch
		if elapsed := clock() - started; elapsed >= each || ctx.Err() != nil {
			return float64(n) / elapsed.Seconds(), ctx.Err()
		}
	}
}

// threadTime is the processor time of this thread.
func threadTime() time.Duration {
	var t unix.Timespec
	if unix.ClockGettime(unix.CLOCK_THREAD_CPUTIME_ID, &t) != nil {
		return 0
	}
	return time.Duration(t.Nano())
}

func benchOperations(ctx context.Context, by Provider, p Params) ([]benchOperation, error) {
	switch p.Family {
	case FamilyKEM:
		return benchKEM(ctx, by, p)
	case FamilySignature:
		return benchSign(ctx, by, p)
	case FamilyAEAD:
		return benchAEAD(ctx, by, p)
	default:
		return benchHash(by, p)
	}
}

func benchKEM(ctx context.Context, by Provider, p Params) ([]benchOperation, error) {
	seed, public, secret := make([]byte, p.Seed), make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	ciphertext, shared := make([]byte, p.Output), make([]byte, p.Shared)
	if err := by.GenerateKey(ctx, p.Algorithm, nil, public, secret); err != nil {
		return nil, err
	}
	e, err := by.Encapsulator(ctx, p.Algorithm, public)
	if err != nil {
		return nil, err
	}
	d, err := by.Decapsulator(ctx, p.Algorithm, secret)
	if err != nil {
		return nil, err
	}
	if err := e.Encapsulate(ctx, ciphertext, shared); err != nil {
		return nil, err
	}
	again := make([]byte, p.Output)
	return []benchOperation{
		{"generate", 0, func() error { return by.GenerateKey(ctx, p.Algorithm, seed, public, secret) }},
		{"generate, tested", 0, func() error { return by.GenerateKey(ctx, p.Algorithm, nil, public, secret) }},
		{"encapsulate", 0, func() error { return e.Encapsulate(ctx, again, shared) }},
		{"decapsulate", 0, func() error { return d.Decapsulate(ctx, shared, ciphertext) }},
	}, nil
}

func benchSign(ctx context.Context, by Provider, p Params) ([]benchOperation, error) {
	seed, public, secret := make([]byte, p.Seed), make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	if err := by.GenerateKey(ctx, p.Algorithm, nil, public, secret); err != nil {
		return nil, err
	}
	signer, err := by.Signer(ctx, p.Algorithm, secret)
	if err != nil {
		return nil, err
	}
	verifier, err := by.Verifier(ctx, p.Algorithm, public)
	if err != nil {
		return nil, err
	}
	message, signature, again := make([]byte, 32), make([]byte, p.Output), make([]byte, p.Output)
	if err := signer.Sign(ctx, signature, message, nil); err != nil {
		return nil, err
	}
	return []benchOperation{
		{"generate", 0, func() error { return by.GenerateKey(ctx, p.Algorithm, seed, public, secret) }},
		{"generate, tested", 0, func() error { return by.GenerateKey(ctx, p.Algorithm, nil, public, secret) }},
		{"sign", 0, func() error { return signer.Sign(ctx, again, message, nil) }},
		{"verify", 0, func() error { return verifier.Verify(ctx, message, signature, nil) }},
	}, nil
}

func benchAEAD(ctx context.Context, by Provider, p Params) ([]benchOperation, error) {
	k, err := by.AEAD(ctx, p.Algorithm, make([]byte, p.SecretKey))
	if err != nil {
		return nil, err
	}
	nonce, plaintext := make([]byte, p.Nonce), make([]byte, BenchSize)
	sealed, err := k.Seal(ctx, nil, nonce, plaintext, nil)
	if err != nil {
		return nil, err
	}
	out := make([]byte, 0, len(sealed))
	return []benchOperation{
		{"seal", BenchSize, func() error { _, err := k.Seal(ctx, out, nonce, plaintext, nil); return err }},
		{"open", BenchSize, func() error { _, err := k.Open(ctx, out, nonce, sealed, nil); return err }},
	}, nil
}

func benchHash(by Provider, p Params) ([]benchOperation, error) {
	message, out := make([]byte, BenchSize), make([]byte, p.Output)
	switch p.Family {
	case FamilyHash:
		h, err := by.Hash(p.Algorithm)
		return []benchOperation{{"hash", BenchSize, func() error {
			h.Reset()
			h.Write(message)
			h.Sum(out[:0])
			return nil
		}}}, err
	case FamilyXOF:
		x, err := by.XOF(p.Algorithm)
		return []benchOperation{{"hash", BenchSize, func() error {
			x.Reset()
			_, _ = x.Write(message)
			_, _ = x.Read(out)
			return nil
		}}}, err
	}
	return []benchOperation{{"derive", 0, func() error { return by.KDF(p.Algorithm, out, message[:32], message[:32], message[:32]) }}}, nil
}
