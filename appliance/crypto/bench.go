package crypto

import (
	"cmp"
	"context"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/pqc"
)

// Random reads randomness of the provider that serves.
func (s *Service) Random(ctx context.Context, n int) (spec.RandomBytes, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return spec.RandomBytes{}, err
	}
	out := spec.RandomBytes{Provider: s.Provider(ctx), Data: make([]byte, cmp.Or(n, 32))}
	err = p.Random(ctx, out.Data)
	return out, err
}

// benchTime is how long an operation is repeated, if nobody says.
const benchTime = 100 * time.Millisecond

// Bench measures operations of the provider that serves now.
func (s *Service) Bench(ctx context.Context, in spec.BenchRequest) (spec.BenchResult, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return spec.BenchResult{}, err
	}
	algorithms, err := benched(in.Algorithms)
	if err != nil {
		return spec.BenchResult{}, err
	}
	b := bench{p: p, each: cmp.Or(time.Duration(in.DurationMs)*time.Millisecond, benchTime)}
	for _, params := range algorithms {
		if err := b.algorithm(ctx, params); err != nil {
			return spec.BenchResult{}, err
		}
	}
	return spec.BenchResult{Provider: s.Provider(ctx), Items: b.items}, nil
}

// benched are the algorithms with these names; all of ML-KEM and ML-DSA for none.
func benched(names []string) ([]pqc.Params, error) {
	var list []pqc.Params
	for _, name := range names {
		a, err := pqc.ParseAlgorithm(name)
		if err != nil {
			return nil, err
		}
		params, err := a.Params()
		if err != nil {
			return nil, err
		}
		list = append(list, params)
	}
	if len(names) > 0 {
		return list, nil
	}
	for _, params := range pqc.Algorithms() {
		switch params.Algorithm {
		case pqc.MLKEM512, pqc.MLKEM768, pqc.MLKEM1024, pqc.MLDSA44, pqc.MLDSA65, pqc.MLDSA87:
			list = append(list, params)
		}
	}
	return list, nil
}

type bench struct {
	p     pqc.Provider
	each  time.Duration
	items []spec.BenchItem
}

// repeat does one operation again and again, at least once.
func (b *bench) repeat(ctx context.Context, p pqc.Params, what spec.BenchItemOperation, do func() error) error {
	item := spec.BenchItem{Algorithm: p.Name, Operation: what}
	start := time.Now()
	for {
		if err := do(); err != nil {
			return err
		}
		item.Operations++
		if spent := time.Since(start); spent >= b.each {
			item.Nanoseconds = spent.Nanoseconds()
			b.items = append(b.items, item)
			return ctx.Err()
		}
	}
}

func (b *bench) algorithm(ctx context.Context, p pqc.Params) error {
	public, secret := make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	err := b.repeat(ctx, p, spec.BenchItemOperationKeygen, func() error { return b.p.GenerateKey(ctx, p.Algorithm, nil, public, secret) })
	if err != nil {
		return err
	}
	if p.Family == pqc.FamilyKEM {
		return b.kem(ctx, p, public, secret)
	}
	return b.signature(ctx, p, public, secret)
}

func (b *bench) kem(ctx context.Context, p pqc.Params, public, secret []byte) error {
	ciphertext, shared := make([]byte, p.Output), make([]byte, p.Shared)
	e, err := b.p.Encapsulator(ctx, p.Algorithm, public)
	if err != nil {
		return err
	}
	d, err := b.p.Decapsulator(ctx, p.Algorithm, secret)
	if err != nil {
		return err
	}
	defer d.Destroy()
	err = b.repeat(ctx, p, spec.BenchItemOperationEncaps, func() error { return e.Encapsulate(ctx, ciphertext, shared) })
	if err != nil {
		return err
	}
	return b.repeat(ctx, p, spec.BenchItemOperationDecaps, func() error { return d.Decapsulate(ctx, shared, ciphertext) })
}

func (b *bench) signature(ctx context.Context, p pqc.Params, public, secret []byte) error {
	message, signature := make([]byte, 64), make([]byte, p.Output)
	signer, err := b.p.Signer(ctx, p.Algorithm, secret)
	if err != nil {
		return err
	}
	defer signer.Destroy()
	v, err := b.p.Verifier(ctx, p.Algorithm, public)
	if err != nil {
		return err
	}
	err = b.repeat(ctx, p, spec.BenchItemOperationSign, func() error { return signer.Sign(ctx, signature, message, nil) })
	if err != nil {
		return err
	}
	return b.repeat(ctx, p, spec.BenchItemOperationVerify, func() error { return v.Verify(ctx, message, signature, nil) })
}
