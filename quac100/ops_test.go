package quac100_test

import (
	"bytes"
	"crypto/aes"
	"crypto/cipher"
	"crypto/mlkem"
	"crypto/sha3"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/slhdsa"

	"quantavirt/internal/qverr"
	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// seeded returns n bytes that are the same in each run.
func seeded(name string, n int) []byte {
	p := make([]byte, n)
	rand.NewChaCha8(sha3.Sum256([]byte(name))).Read(p)
	return p
}

func sizesOf(t *testing.T, a regs.Alg) regs.Sizes {
	t.Helper()
	s, ok := regs.SizesOf(a)
	if !ok {
		t.Fatalf("no %v", a)
	}
	return s
}

// want checks an error's code and the card's reason.
func want(t *testing.T, what string, err error, code qverr.Code, detail regs.Detail) {
	t.Helper()
	_, d, _ := quac100.Reason(err)
	if qverr.CodeOf(err) != code || d != detail {
		t.Errorf("%s: code %d, detail %v (%v); want %d, %v", what, qverr.CodeOf(err), d, err, code, detail)
	}
}

var kems = []regs.Alg{regs.MLKEM512, regs.MLKEM768, regs.MLKEM1024}

func TestKEM(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	for _, alg := range kems {
		s := sizesOf(t, alg)
		public, secret := make([]byte, s.Public), make([]byte, s.Secret)
		if err := c.KEMKeygen(ctx, alg, seeded("kem", s.Seed), public, secret); err != nil {
			t.Fatal(err)
		}
		if alg == regs.MLKEM768 {
			dk, err := mlkem.NewDecapsulationKey768(seeded("kem", s.Seed))
			if err != nil || !bytes.Equal(dk.EncapsulationKey().Bytes(), public) {
				t.Errorf("another public key than the library's: %v", err)
			}
		}
		ct, shared, got := make([]byte, s.Output), make([]byte, 32), make([]byte, 32)
		if err := c.Encapsulate(ctx, alg, quac100.Inline(public), seeded("m", 32), ct, shared); err != nil {
			t.Fatal(err)
		}
		if err := c.Decapsulate(ctx, alg, quac100.Inline(secret), ct, got); err != nil || !bytes.Equal(got, shared) {
			t.Errorf("%v: %x, %v; want %x", alg, got, err, shared)
		}
		ct[0] ^= 1
		if err := c.Decapsulate(ctx, alg, quac100.Inline(secret), ct, got); err != nil || bytes.Equal(got, shared) {
			t.Errorf("%v: a wrong ciphertext gives %x, %v", alg, got, err)
		}
		storedKEM(t, c, alg, s)
	}
}

// storedKEM does the same with keys on the card, and ends with AES keys there.
func storedKEM(t *testing.T, c *quac100.Card, alg regs.Alg, s regs.Sizes) {
	ctx := t.Context()
	public := make([]byte, s.Public)
	h, err := c.KEMKeygenStored(ctx, alg, nil, nil, public)
	if err != nil {
		t.Fatal(err)
	}
	ct, shared, got := make([]byte, s.Output), make([]byte, 32), make([]byte, 32)
	if err := c.Encapsulate(ctx, alg, quac100.Stored(h), nil, ct, shared); err != nil {
		t.Fatal(err)
	}
	if err := c.Decapsulate(ctx, alg, quac100.Stored(h), ct, got); err != nil || !bytes.Equal(got, shared) {
		t.Errorf("%v stored: %x, %v; want %x", alg, got, err, shared)
	}
	k1, err := c.EncapsulateStored(ctx, alg, quac100.Inline(public), nil, ct)
	if err != nil {
		t.Fatal(err)
	}
	k2, err := c.DecapsulateStored(ctx, alg, quac100.Stored(h), ct)
	if err != nil {
		t.Fatal(err)
	}
	nonce, text := seeded("nonce", 12), []byte("from one end to the other")
	sealed, opened := make([]byte, len(text)+16), make([]byte, len(text))
	if err := c.EncryptGCM(ctx, quac100.Stored(k1), nonce, nil, text, sealed); err != nil {
		t.Fatal(err)
	}
	if err := c.DecryptGCM(ctx, quac100.Stored(k2), nonce, nil, sealed, opened); err != nil || !bytes.Equal(opened, text) {
		t.Errorf("%v: the stored keys of both ends differ: %v", alg, err)
	}
	for _, k := range []quac100.Handle{h, k1, k2} {
		if err := c.DeleteKey(ctx, k); err != nil {
			t.Error(err)
		}
	}
	want(t, "deleted key", c.Decapsulate(ctx, alg, quac100.Stored(h), ct, got), qverr.PQCKeyNotFound, 0)
}

var signers = []regs.Alg{regs.MLDSA44, regs.MLDSA65, regs.MLDSA87, regs.SLHSHA2128f, regs.SLHSHA2192f, regs.SLHSHA2256f}

func TestSignatures(t *testing.T) {
	c, _, _ := open(t, model.Config{})
	for _, alg := range signers {
		t.Run(alg.String(), func(t *testing.T) { signature(t, c, alg) })
	}
}

// The small sets take seconds each: one signature, and one set unless it is
// the long run.
func TestSmallSLHDSA(t *testing.T) {
	sets := []regs.Alg{regs.SLHSHA2128s}
	if os.Getenv("QV_SOAK") == "1" {
		sets = append(sets, regs.SLHSHA2192s, regs.SLHSHA2256s)
	}
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	for _, alg := range sets {
		s := sizesOf(t, alg)
		public, secret, sig := make([]byte, s.Public), make([]byte, s.Secret), make([]byte, s.Output)
		if err := c.SignKeygen(ctx, alg, seeded("sig", s.Seed), public, secret); err != nil {
			t.Fatal(err)
		}
		if err := c.Sign(ctx, alg, quac100.Inline(secret), quac100.SignOptions{}, []byte("m"), sig); err != nil {
			t.Fatal(err)
		}
		id, err := slhdsa.IDByName(alg.String())
		if err != nil {
			t.Fatal(err)
		}
		pk := slhdsa.PublicKey{ID: id}
		if err := pk.UnmarshalBinary(public); err != nil || !slhdsa.Verify(&pk, slhdsa.NewMessage([]byte("m")), sig, nil) {
			t.Errorf("%v: the library refuses the signature", alg)
		}
		if err := c.Verify(ctx, alg, quac100.Inline(public), quac100.SignOptions{}, []byte("m"), sig); err != nil {
			t.Errorf("%v: %v", alg, err)
		}
	}
}

func signature(t *testing.T, c *quac100.Card, alg regs.Alg) {
	ctx := t.Context()
	s := sizesOf(t, alg)
	public, secret := make([]byte, s.Public), make([]byte, s.Secret)
	if err := c.SignKeygen(ctx, alg, seeded("sig", s.Seed), public, secret); err != nil {
		t.Fatal(err)
	}
	h, err := c.SignKeygenStored(ctx, alg, seeded("sig", s.Seed), nil, make([]byte, s.Public))
	if err != nil {
		t.Fatal(err)
	}
	msg := []byte("a message")
	for _, o := range []quac100.SignOptions{
		{}, {Context: []byte("with context")}, {Deterministic: true}, {Context: make([]byte, 255), Hash: regs.HashSHA512},
		{Hash: regs.HashSHA3512, Deterministic: true}, {Hash: regs.HashSHAKE256},
	} {
		a, b := make([]byte, s.Output), make([]byte, s.Output)
		if err := c.Sign(ctx, alg, quac100.Inline(secret), o, msg, a); err != nil {
			t.Fatalf("%+v: %v", o, err)
		}
		if err := c.Sign(ctx, alg, quac100.Stored(h), o, msg, b); err != nil {
			t.Fatalf("%+v stored: %v", o, err)
		}
		if bytes.Equal(a, b) != o.Deterministic {
			t.Errorf("%+v: two signatures are the same: %t", o, bytes.Equal(a, b))
		}
		for _, key := range []quac100.Key{quac100.Inline(public), quac100.Stored(h)} {
			if err := c.Verify(ctx, alg, key, o, msg, a); err != nil {
				t.Errorf("%+v: %v", o, err)
			}
			other := o
			other.Context = []byte("another")
			want(t, "another context", c.Verify(ctx, alg, key, other, msg, a), qverr.PQCVerify, regs.DetailSigInvalid)
			want(t, "another message", c.Verify(ctx, alg, key, o, msg[1:], a), qverr.PQCVerify, regs.DetailSigInvalid)
		}
		a[len(a)/2] ^= 1
		want(t, "a flipped bit", c.Verify(ctx, alg, quac100.Inline(public), o, msg, a), qverr.PQCVerify, regs.DetailSigInvalid)
	}
}

func TestAESGCM(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	key, nonce, aad := seeded("key", 32), seeded("nonce", 12), seeded("aad", 100)
	block, err := aes.NewCipher(key)
	if err != nil {
		t.Fatal(err)
	}
	lib, err := cipher.NewGCM(block)
	if err != nil {
		t.Fatal(err)
	}
	for _, n := range []int{0, 1, 15, 4000, 70_000, 5 << 20, regs.MaxTransfer - 16} {
		text := seeded("text", n)
		got, back := make([]byte, n+16), make([]byte, n)
		if err := c.EncryptGCM(ctx, quac100.Inline(key), nonce, aad, text, got); err != nil {
			t.Fatalf("%d bytes: %v", n, err)
		}
		if !bytes.Equal(got, lib.Seal(nil, nonce, text, aad)) {
			t.Errorf("%d bytes: another ciphertext than the library's", n)
		}
		if err := c.DecryptGCM(ctx, quac100.Inline(key), nonce, aad, got, back); err != nil || !bytes.Equal(back, text) {
			t.Errorf("%d bytes: %v", n, err)
		}
		got[n/2] ^= 1
		clear(back)
		want(t, "changed", c.DecryptGCM(ctx, quac100.Inline(key), nonce, aad, got, back), qverr.PQCDecrypt, regs.DetailTagMismatch)
		if !bytes.Equal(back, make([]byte, n)) {
			t.Errorf("%d bytes: plaintext came out with a wrong tag", n)
		}
	}
	h, err := c.GenerateAESKey(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	fresh, sealed, back := make([]byte, 12), make([]byte, 21), make([]byte, 5)
	if err := c.EncryptGCMFresh(ctx, quac100.Stored(h), aad, []byte("hello"), fresh, sealed); err != nil {
		t.Fatal(err)
	}
	if err := c.DecryptGCM(ctx, quac100.Stored(h), fresh, aad, sealed, back); err != nil || string(back) != "hello" {
		t.Errorf("%q, %v", back, err)
	}
}

func TestRandomAndControl(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	for q := regs.QualityStandard; q <= regs.QualityFast; q++ {
		a, b := make([]byte, 64), make([]byte, 64)
		if err := c.ReadRandom(ctx, q, a); err != nil {
			t.Fatal(err)
		}
		if err := c.ReadRandom(ctx, q, b); err != nil || bytes.Equal(a, b) {
			t.Errorf("quality %d: %v", q, err)
		}
	}
	if err := c.Reseed(ctx, []byte("more")); err != nil {
		t.Error(err)
	}
	if failed, err := c.TestQRNG(ctx); err != nil || failed != 0 {
		t.Errorf("%#x, %v", failed, err)
	}
	if err := c.RawSamples(ctx, 7, make([]byte, regs.QRNGRawMax)); err != nil {
		t.Error(err)
	}
	if err := c.NOP(ctx, true); err != nil {
		t.Error(err)
	}
	long := seeded("echo", regs.EchoMax)
	got := make([]byte, len(long))
	if err := c.Echo(ctx, long, got); err != nil || !bytes.Equal(got, long) {
		t.Errorf("echo of 1 MiB: %v", err)
	}
	if i, err := c.Info(ctx); err != nil || i.Caps != c.Caps() {
		t.Errorf("%+v, %v", i, err)
	}
}

// importable lists keys by their type with material that fits.
func importable(t *testing.T, c *quac100.Card) map[string]struct {
	attrs    regs.Attributes
	material []byte
} {
	t.Helper()
	out := make(map[string]struct {
		attrs    regs.Attributes
		material []byte
	})
	add := func(name string, alg regs.Alg, typ regs.KeyType, material []byte) {
		out[name] = struct {
			attrs    regs.Attributes
			material []byte
		}{regs.Attributes{Alg: alg, Type: typ, Usage: 0xFF, Flags: regs.AttrDestroyable | regs.AttrExtractable, Label: name}, material}
	}
	for _, alg := range []regs.Alg{regs.MLKEM512, regs.MLDSA44, regs.MLDSA65, regs.MLDSA87, regs.SLHSHA2192f} {
		s := sizesOf(t, alg)
		public, secret := make([]byte, s.Public), make([]byte, s.Secret)
		base := regs.KeySignaturePublic
		keygen := c.SignKeygen
		if s.Family == regs.FamilyKEM {
			base, keygen = regs.KeyKEMPublic, c.KEMKeygen
		}
		if err := keygen(t.Context(), alg, nil, public, secret); err != nil {
			t.Fatal(err)
		}
		add(s.Name+" public", alg, base, public)
		add(s.Name+" secret", alg, base+1, secret)
		add(s.Name+" pair", alg, base+2, append(bytes.Clone(public), secret...))
	}
	add("AES", regs.AES256GCM, regs.KeySymmetric, seeded("aes", 32))
	add("raw", regs.AlgRaw, regs.KeyRaw, []byte{1, 2, 3})
	return out
}

func TestKeyStore(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	wrap, err := c.GenerateAESKey(ctx, &regs.Attributes{Alg: regs.AES256GCM, Type: regs.KeySymmetric,
		Usage: regs.UsageWrap | regs.UsageUnwrap, Flags: regs.AttrDestroyable})
	if err != nil {
		t.Fatal(err)
	}
	for name, k := range importable(t, c) {
		h, err := c.ImportKey(ctx, &k.attrs, k.material)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		i, err := c.KeyInfo(ctx, h)
		if err != nil || i.Label != name || i.Type != k.attrs.Type || i.State != regs.KeyActive || quac100.Handle(i.Handle) != h {
			t.Errorf("%s: %+v, %v", name, i, err)
		}
		if i.SecretLen == 0 {
			continue
		}
		blob := make([]byte, quac100.WrappedSize(int(i.PublicLen), int(i.SecretLen)))
		if _, err := c.ExportWrapped(ctx, h, wrap, blob); err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if bytes.Contains(blob, k.material[len(k.material)-3:]) && len(k.material) > 3 {
			t.Errorf("%s: the blob has the key in it", name)
		}
		again, err := c.ImportWrapped(ctx, wrap, blob, false)
		if err != nil {
			t.Errorf("%s: %v", name, err)
			continue
		}
		if j, err := c.KeyInfo(ctx, again); err != nil || j.KeyDigest != i.KeyDigest || j.Usage != i.Usage {
			t.Errorf("%s: unwrapped %+v, %v", name, j, err)
		}
		for _, at := range []int{0, 8, 0x20, 0x60, 0x78, len(blob) - 1} {
			bad := bytes.Clone(blob)
			bad[at] ^= 1
			_, err := c.ImportWrapped(ctx, wrap, bad, false)
			want(t, name+" changed", err, qverr.PQCDecrypt, regs.DetailWrapBad)
		}
		for _, k := range []quac100.Handle{h, again} {
			if err := c.DeleteKey(ctx, k); err != nil {
				t.Error(err)
			}
		}
	}
	all, err := c.ListKeys(ctx)
	if err != nil || len(all) != 1+5 {
		t.Errorf("keys left: %x, %v", all, err)
	}
	if of, err := c.ListKeysOf(ctx, regs.KeySymmetric); err != nil || len(of) != 1 || of[0] != wrap {
		t.Errorf("symmetric keys: %x, %v", of, err)
	}
	if err := c.ZeroizeKeys(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := c.ListKeys(ctx); err != nil || len(all) != 0 {
		t.Errorf("keys after zeroizing: %x, %v", all, err)
	}
}

func TestKeyRefusals(t *testing.T) {
	ctx := t.Context()
	c, _, _ := open(t, model.Config{})
	public := make([]byte, 1184)
	pair, err := c.KEMKeygenStored(ctx, regs.MLKEM768, nil, nil, public)
	if err != nil {
		t.Fatal(err)
	}
	once := regs.Attributes{Alg: regs.AES256GCM, Type: regs.KeySymmetric, Usage: regs.UsageEncrypt, MaxUses: 1}
	limited, err := c.ImportKey(ctx, &once, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	old := once
	old.MaxUses, old.Expiry = 0, uint64(time.Now().Unix()-1)
	expired, err := c.ImportKey(ctx, &old, make([]byte, 32))
	if err != nil {
		t.Fatal(err)
	}
	enc := func(h quac100.Handle) error {
		return c.EncryptGCM(ctx, quac100.Stored(h), make([]byte, 12), nil, nil, make([]byte, 16))
	}
	dec := c.DecryptGCM(ctx, quac100.Stored(limited), make([]byte, 12), nil, make([]byte, 16), nil)
	want(t, "usage", dec, qverr.Perm, regs.DetailKeyUsage)
	if err := enc(limited); err != nil {
		t.Error(err)
	}
	want(t, "quota", enc(limited), qverr.Limit, regs.DetailQuota)
	want(t, "expired", enc(expired), qverr.PQCKeyExpired, regs.DetailKeyState)
	want(t, "type", enc(pair), qverr.Inval, regs.DetailKeyType)
	want(t, "not destroyable", c.DeleteKey(ctx, limited), qverr.Perm, regs.DetailKeyUsage)
	ct := make([]byte, 768)
	want(t, "another set", c.Encapsulate(ctx, regs.MLKEM512, quac100.Stored(pair), nil, ct, make([]byte, 32)), qverr.Inval, regs.DetailKeyType)
	_, err = c.ExportWrapped(ctx, pair, limited, make([]byte, 4096))
	want(t, "not extractable", err, qverr.Perm, regs.DetailNotExtractable)
	if n, err := c.ExportPublic(ctx, pair, make([]byte, 2000)); err != nil || n != 1184 {
		t.Errorf("public key of %d bytes, %v", n, err)
	}
	_, err = c.ExportPublic(ctx, pair, make([]byte, 1183))
	want(t, "no room", err, qverr.Inval, regs.DetailDst0Len)
	_, err = c.ExportPublic(ctx, limited, make([]byte, 100))
	want(t, "no public half", err, qverr.Inval, regs.DetailKeyType)
	halves := regs.Attributes{Alg: regs.MLKEM768, Type: regs.KeyKEMPair}
	_, err = c.ImportKey(ctx, &halves, append(bytes.Clone(public), make([]byte, 2400)...))
	want(t, "halves", err, qverr.Inval, regs.DetailKeyCheck)
	_, err = c.ImportKey(ctx, &regs.Attributes{Alg: regs.MLKEM768, Type: regs.KeySignaturePublic}, public)
	want(t, "another type", err, qverr.Inval, regs.DetailKeyType)
	for {
		if _, err = c.GenerateAESKey(ctx, nil); err != nil {
			break
		}
	}
	want(t, "full", err, qverr.Again, regs.DetailKeyStoreFull)
	if !qverr.From(err).NotTransient {
		t.Error("a full store counts as transient")
	}
	if all, err := c.ListKeys(ctx); err != nil || len(all) != regs.KeySlots {
		t.Errorf("%d keys, %v", len(all), err)
	}
}

// Persistent keys outlive the card's power and the process; volatile ones do
// not outlive a reset, and no old handle finds another key.
func TestPersistence(t *testing.T) {
	ctx := t.Context()
	cfg := model.Config{KeyFile: filepath.Join(t.TempDir(), "keys")}
	c, m, _ := open(t, cfg)
	attrs := regs.Attributes{Alg: regs.MLDSA65, Type: regs.KeySignaturePair, Usage: regs.UsageSign | regs.UsageVerify,
		Flags: regs.AttrPersistent | regs.AttrDestroyable, Label: "stays"}
	kept, err := c.SignKeygenStored(ctx, regs.MLDSA65, nil, &attrs, make([]byte, 1952))
	if err != nil {
		t.Fatal(err)
	}
	lost, err := c.GenerateAESKey(ctx, nil)
	if err != nil {
		t.Fatal(err)
	}
	if err := c.Reset(ctx); err != nil {
		t.Fatal(err)
	}
	if all, err := c.ListKeys(ctx); err != nil || len(all) != 1 || all[0] != kept {
		t.Errorf("after a reset: %x, %v; want %x", all, err, kept)
	}
	if again, err := c.GenerateAESKey(ctx, nil); err != nil || again == lost {
		t.Errorf("the handle %x of a lost key is given again: %v", again, err)
	}
	if err := c.Close(); err != nil {
		t.Fatal(err)
	}
	_ = m.Close()
	c, _, _ = open(t, cfg)
	sig := make([]byte, 3309)
	if err := c.Sign(ctx, regs.MLDSA65, quac100.Stored(kept), quac100.SignOptions{}, []byte("m"), sig); err != nil {
		t.Fatal(err)
	}
	if i, err := c.KeyInfo(ctx, kept); err != nil || i.Label != "stays" {
		t.Errorf("%+v, %v", i, err)
	}
	if err := c.DeleteKey(ctx, kept); err != nil {
		t.Error(err)
	}
}
