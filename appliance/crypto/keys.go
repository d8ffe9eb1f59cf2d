package crypto

import (
	"context"
	"encoding/hex"
	"io"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/pqc"
	"quantavirt/pqc/envelope"
	"quantavirt/pqc/keystore"
)

// MaxMessage is the largest message that is signed, in bytes: it is in memory as a
// whole.
const MaxMessage = 32 << 20

// ListKeys lists all keys.
func (s *Service) ListKeys(ctx context.Context) (spec.KeyList, error) {
	store, _, err := s.keys(ctx)
	if err != nil {
		return spec.KeyList{}, err
	}
	keys, err := store.List()
	if err != nil {
		return spec.KeyList{}, err
	}
	out := spec.KeyList{Items: []spec.Key{}}
	for _, k := range keys {
		out.Items = append(out.Items, shown(k))
	}
	return out, nil
}

// shown is a key as the API shows it.
func shown(k keystore.Key) spec.Key {
	out := spec.Key{
		ID: k.ID, Label: k.Label, Algorithm: k.Algorithm.String(), State: spec.KeyState(k.State(time.Now())), Version: k.Version,
		Origin: spec.KeyOrigin(k.Origin), Card: k.Card, Extractable: k.Extractable, CreatedAt: k.CreatedAt, ExpiresAt: maybe(k.ExpiresAt),
		RetiredAt: maybe(k.RetiredAt), Replaces: k.Replaces, ReplacedBy: k.ReplacedBy, Uses: int64(k.Uses), UsedAt: maybe(k.UsedAt),
		PublicKey: k.Public,
	}
	for _, u := range k.Usage {
		out.Usage = append(out.Usage, spec.KeyUsage(u))
	}
	return out
}

func maybe(t time.Time) *time.Time {
	if t.IsZero() {
		return nil
	}
	return &t
}

func orZero(t *time.Time) time.Time {
	if t == nil {
		return time.Time{}
	}
	return *t
}

// one does something with the keystore that gives a key.
func (s *Service) one(ctx context.Context, do func(*keystore.Store) (keystore.Key, error)) (spec.Key, error) {
	store, _, err := s.keys(ctx)
	if err != nil {
		return spec.Key{}, err
	}
	k, err := do(store)
	if err != nil {
		return spec.Key{}, err
	}
	return shown(k), nil
}

// Key shows one key.
func (s *Service) Key(ctx context.Context, ref string) (spec.Key, error) {
	return s.one(ctx, func(k *keystore.Store) (keystore.Key, error) { return k.Get(ref) })
}

// GenerateKey makes a key pair.
func (s *Service) GenerateKey(ctx context.Context, in spec.KeyGenerate) (spec.Key, error) {
	a, err := pqc.ParseAlgorithm(in.Algorithm)
	if err != nil {
		return spec.Key{}, err
	}
	r := request(in.Label, in.Usage, in.ExpiresAt, in.Extractable)
	r.Algorithm, r.OnCard = a, in.OnCard
	return s.one(ctx, func(k *keystore.Store) (keystore.Key, error) { return k.Generate(ctx, r) })
}

func request(label string, usage []spec.KeyUsage, expires *time.Time, extractable bool) keystore.Request {
	r := keystore.Request{Label: label, ExpiresAt: orZero(expires), Extractable: extractable}
	for _, u := range usage {
		r.Usage = append(r.Usage, keystore.Usage(u))
	}
	return r
}

// ImportKey brings a private key in.
func (s *Service) ImportKey(ctx context.Context, in spec.KeyImport) (spec.Key, error) {
	store, envelopes, err := s.keys(ctx)
	if err != nil {
		return spec.Key{}, err
	}
	der, err := envelopes.Open(envelope.Import, in.Key)
	if err != nil {
		return spec.Key{}, err
	}
	defer der.Wipe()
	k, err := store.Import(ctx, der.Bytes(), request(in.Label, in.Usage, in.ExpiresAt, in.Extractable))
	if err != nil {
		return spec.Key{}, err
	}
	return shown(k), nil
}

// RotateKey makes a new key in the place of one.
func (s *Service) RotateKey(ctx context.Context, ref string, in spec.KeyRotate) (spec.Key, error) {
	return s.one(ctx, func(k *keystore.Store) (keystore.Key, error) { return k.Rotate(ctx, ref, orZero(in.ExpiresAt)) })
}

// ExpireKey says when a key expires.
func (s *Service) ExpireKey(ctx context.Context, ref string, in spec.KeyExpire) (spec.Key, error) {
	if in.Never && in.At != nil {
		return spec.Key{}, qverr.New(qverr.Inval, "a key expires at a time or never, not both")
	}
	at := orZero(in.At)
	if in.At == nil && !in.Never {
		at = time.Now()
	}
	return s.one(ctx, func(k *keystore.Store) (keystore.Key, error) { return k.Expire(ref, at) })
}

// DestroyKey wipes a key.
func (s *Service) DestroyKey(ctx context.Context, ref string) error {
	store, _, err := s.keys(ctx)
	if err != nil {
		return err
	}
	return store.Destroy(ctx, ref)
}

// ExportKey gives a private key out, sealed for the recipient.
func (s *Service) ExportKey(ctx context.Context, ref string, in spec.KeyExport) (spec.Envelope, error) {
	store, _, err := s.keys(ctx)
	if err != nil {
		return spec.Envelope{}, err
	}
	der, err := store.Export(ctx, ref)
	if err != nil {
		return spec.Envelope{}, err
	}
	defer der.Wipe()
	sealed, err := envelope.Seal(in.Recipient, envelope.Export, der.Bytes())
	if err != nil {
		return spec.Envelope{}, err
	}
	s.log.Warn("a private key was exported", "key", ref)
	return spec.Envelope{Envelope: sealed}, nil
}

// Sign signs a message of at most MaxMessage bytes.
func (s *Service) Sign(ctx context.Context, ref string, p spec.SignParams, message io.Reader) (spec.Signature, error) {
	o := pqc.SignOptions{Deterministic: p.Deterministic}
	var err error
	if o.Context, err = hex.DecodeString(p.Context); err != nil {
		return spec.Signature{}, qverr.New(qverr.Inval, "query parameter context: %w", err).With("parameter", "context")
	}
	if p.Prehash != "" {
		if o.Hash, err = pqc.ParseAlgorithm(p.Prehash); err != nil {
			return spec.Signature{}, err
		}
	}
	store, _, err := s.keys(ctx)
	if err != nil {
		return spec.Signature{}, err
	}
	k, err := store.Get(ref) // before the body is read
	if err != nil {
		return spec.Signature{}, err
	}
	data, err := io.ReadAll(io.LimitReader(message, MaxMessage+1))
	if err != nil {
		return spec.Signature{}, qverr.New(qverr.IO, "read the message: %w", err)
	}
	if len(data) > MaxMessage {
		return spec.Signature{}, qverr.New(qverr.Inval, "a message of more than %d bytes", MaxMessage).WithHint("sign a hash of it")
	}
	signature, err := store.Sign(ctx, k.ID, data, &o)
	if err != nil {
		return spec.Signature{}, err
	}
	return spec.Signature{Signature: signature, KeyID: k.ID, Algorithm: k.Algorithm.String()}, nil
}

// Decapsulate recovers a shared key, sealed for the recipient.
func (s *Service) Decapsulate(ctx context.Context, ref string, in spec.Decapsulate) (spec.Envelope, error) {
	store, _, err := s.keys(ctx)
	if err != nil {
		return spec.Envelope{}, err
	}
	shared, err := store.Decapsulate(ctx, ref, in.Ciphertext)
	if err != nil {
		return spec.Envelope{}, err
	}
	defer shared.Wipe()
	sealed, err := envelope.Seal(in.Recipient, envelope.Shared, shared.Bytes())
	return spec.Envelope{Envelope: sealed}, err
}
