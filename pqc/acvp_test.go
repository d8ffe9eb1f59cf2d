package pqc

import (
	"bytes"
	"context"
	"io"
	"slices"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa44"
	"github.com/cloudflare/circl/sign/mldsa/mldsa65"
	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// Known-answer tests give the randomness; not every provider takes it.
type (
	seededEncapsulator interface {
		encapsulateWith(ctx context.Context, m, ciphertext, shared []byte) error
	}
	seededSigner interface {
		signWith(rnd, signature, message []byte, o *SignOptions) error
	}
)

// vectors runs vectors on a provider.
type vectors struct {
	*testing.T
	p     Provider
	count tally
}

func (v *vectors) algorithm(c vectorCase) (Params, bool) {
	a, err := ParseAlgorithm(c.group.ParameterSet)
	if err != nil || !v.p.Supports(a) {
		return Params{}, false // SHAKE sets, or what this provider does not have
	}
	p, _ := a.Params()
	return p, true
}

func (v *vectors) same(c vectorCase, what string, got, want []byte) {
	v.Helper()
	if len(want) == 0 || !bytes.Equal(got, want) {
		v.Errorf("%s: %s is %.40x, want %.40x", c, what, got, want)
	}
}

func (v *vectors) no(c vectorCase, err error) {
	v.Helper()
	if err != nil {
		v.Errorf("%s: %v", c, err)
	}
}

// or is the first that is there: of the case or of its group.
func or(a, b hexBytes) hexBytes {
	if a != nil {
		return a
	}
	return b
}

// keyGen runs key generation of every scheme.
func (v *vectors) keyGen(c vectorCase) {
	p, ok := v.algorithm(c)
	if !ok {
		return
	}
	seed := slices.Concat(c.in.Seed, c.in.D, c.in.Z, c.in.SkSeed, c.in.SkPrf, c.in.PkSeed)
	public, secret := make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	err := v.p.GenerateKey(v.Context(), p.Algorithm, seed, public, secret)
	if qverr.CodeOf(err) == qverr.Unsupported {
		return
	}
	v.no(c, err)
	v.same(c, "public key", public, or(c.out.PK, c.out.EK))
	v.same(c, "secret key", secret, or(c.out.SK, c.out.DK))
	v.count.add(p.Name, "key generation")
}

func (v *vectors) encapDecap(c vectorCase) {
	p, ok := v.algorithm(c)
	if !ok {
		return
	}
	ctx := v.Context()
	ciphertext, shared := make([]byte, p.Output), make([]byte, p.Shared)
	switch c.group.Function {
	case "encapsulation":
		e, err := v.p.Encapsulator(ctx, p.Algorithm, or(c.in.EK, c.group.EK))
		v.no(c, err)
		seeded, ok := e.(seededEncapsulator)
		if !ok {
			return
		}
		v.no(c, seeded.encapsulateWith(ctx, c.in.M, ciphertext, shared))
		v.same(c, "ciphertext", ciphertext, c.out.C)
		v.same(c, "shared key", shared, c.out.K)
	case "decapsulation":
		d, err := v.p.Decapsulator(ctx, p.Algorithm, or(c.in.DK, c.group.DK))
		v.no(c, err)
		v.no(c, d.Decapsulate(ctx, shared, c.in.C))
		v.same(c, "shared key", shared, c.out.K)
		d.Destroy()
	case "encapsulationKeyCheck":
		e, err := v.p.Encapsulator(ctx, p.Algorithm, c.in.EK)
		if err == nil {
			err = e.Encapsulate(ctx, ciphertext, shared)
		}
		v.passed(c, err, qverr.PQCEncaps)
	case "decapsulationKeyCheck":
		d, err := v.p.Decapsulator(ctx, p.Algorithm, c.in.DK)
		if err == nil {
			err = d.Decapsulate(ctx, shared, ciphertext)
		}
		v.passed(c, err, qverr.PQCDecaps)
	default:
		v.Fatalf("%s: function %s", c, c.group.Function)
	}
	v.count.add(p.Name, c.group.Function)
}

// passed compares with a case that says whether something is valid.
func (v *vectors) passed(c vectorCase, err error, refusal qverr.Code) {
	v.Helper()
	want := qverr.Success
	if !*c.out.TestPassed {
		want = refusal
	}
	if got := qverr.CodeOf(err); got != want {
		v.Errorf("%s: code %d, want %d: %v", c, got, want, err)
	}
}

// options are those of a case of the external interface.
func (v *vectors) options(c vectorCase) (o *SignOptions, op string) {
	o, op = &SignOptions{Context: c.in.Context, Deterministic: c.group.Deterministic}, " pure"
	if c.group.PreHash == "preHash" {
		var err error
		if o.Hash, err = ParseAlgorithm(c.in.HashAlg); err != nil {
			return nil, ""
		}
		op = " pre-hashed"
	}
	return o, op
}

func (v *vectors) sigGen(c vectorCase) {
	p, ok := v.algorithm(c)
	if !ok || c.group.SignatureInterface != "external" {
		return
	}
	o, op := v.options(c)
	if o == nil {
		return
	}
	signer, err := v.p.Signer(v.Context(), p.Algorithm, or(c.in.SK, c.group.SK))
	v.no(c, err)
	defer signer.Destroy()
	signature := make([]byte, p.Output)
	if rnd := or(c.in.Rnd, c.in.AdditionalRandomness); !c.group.Deterministic {
		seeded, ok := signer.(seededSigner)
		if !ok {
			return
		}
		op += " hedged"
		err = seeded.signWith(rnd, signature, c.in.Message, o)
	} else {
		err = signer.Sign(v.Context(), signature, c.in.Message, o)
	}
	if weak(p, o) {
		v.refused(c, err)
		op = " with a weak hash refused"
	} else {
		v.no(c, err)
		v.same(c, "signature", signature, c.out.Signature)
	}
	v.count.add(p.Name, "sign"+op)
}

// weak tells whether a vector pre-hashes with less strength than the key has,
// as some of SLH-DSA's do. We refuse that.
func weak(p Params, o *SignOptions) bool {
	h, err := o.Hash.Params()
	return err == nil && h.Strength < p.Strength
}

func (v *vectors) refused(c vectorCase, err error) {
	v.Helper()
	if got := qverr.CodeOf(err); got != qverr.PQCParamSet {
		v.Errorf("%s: a weak hash: %v", c, err)
	}
}

func (v *vectors) sigVer(c vectorCase) {
	p, ok := v.algorithm(c)
	if !ok || c.group.SignatureInterface != "external" {
		return
	}
	o, op := v.options(c)
	if o == nil {
		return
	}
	verifier, err := v.p.Verifier(v.Context(), p.Algorithm, or(c.in.PK, c.group.PK))
	v.no(c, err)
	err = verifier.Verify(v.Context(), c.in.Message, c.in.Signature, o)
	if weak(p, o) {
		v.refused(c, err)
		op = " with a weak hash refused"
	} else {
		v.passed(c, err, qverr.PQCVerify)
	}
	v.count.add(p.Name, "verify"+op)
}

// Key generation, encapsulation and decapsulation of ML-KEM.
func TestACVPKEM(t *testing.T) {
	forProviders(t, MLKEM768, func(v *vectors) {
		const dir = "kem/mlkem/testdata/ML-KEM-"
		for _, c := range circlVectors(v.T, dir+"keyGen-FIPS203/prompt.json.gz", dir+"keyGen-FIPS203/expectedResults.json.gz") {
			v.keyGen(c)
		}
		for _, c := range circlVectors(v.T, dir+"encapDecap-FIPS203/prompt.json.gz", dir+"encapDecap-FIPS203/expectedResults.json.gz") {
			v.encapDecap(c)
		}
	})
}

// ML-DSA: key generation, and the external interface.
func TestACVPMLDSA(t *testing.T) {
	dir := fetchModule(t, geomys, geomysSum)
	forProviders(t, MLDSA65, func(v *vectors) {
		const keys = "sign/mldsa/testdata/ML-DSA-keyGen-FIPS204/"
		for _, c := range circlVectors(v.T, keys+"prompt.json.gz", keys+"expectedResults.json.gz") {
			v.keyGen(c)
		}
		for _, c := range geomysVectors(v.T, dir, "ML-DSA") {
			switch {
			case c.out.Signature != nil:
				v.sigGen(c)
			case c.in.Signature != nil:
				v.sigVer(c)
			}
		}
	})
}

// Sign_internal and Verify_internal, which software signs and verifies with.
func TestACVPMLDSAInternal(t *testing.T) {
	count := tally{}
	const dir = "sign/mldsa/testdata/ML-DSA-"
	cases := circlVectors(t, dir+"sigGen-FIPS204/prompt.json.gz", dir+"sigGen-FIPS204/expectedResults.json.gz")
	for _, c := range append(cases, circlVectors(t, dir+"sigVer-FIPS204/prompt.json.gz", dir+"sigVer-FIPS204/expectedResults.json.gz")...) {
		a, err := ParseAlgorithm(c.group.ParameterSet)
		if err != nil {
			t.Fatal(err)
		}
		if c.out.TestPassed != nil {
			if got := verifyInternal(t, a, or(c.in.PK, c.group.PK), c.in.Message, c.in.Signature); got != *c.out.TestPassed {
				t.Errorf("%s: verified %v", c, got)
			}
			count.add(a.String(), "verify internal")
			continue
		}
		if got := signInternal(t, a, c.in.SK, c.in.Message, c.in.Rnd); !bytes.Equal(got, c.out.Signature) {
			t.Errorf("%s: another signature", c)
		}
		count.add(a.String(), "sign internal")
	}
	count.report(t, "ML-DSA, internal interface, in software")
}

func unpack[K interface{ UnmarshalBinary([]byte) error }](t *testing.T, k K, packed []byte) K {
	t.Helper()
	if err := k.UnmarshalBinary(packed); err != nil {
		t.Fatal(err)
	}
	return k
}

func signInternal(t *testing.T, a Algorithm, secret, message, rnd []byte) []byte {
	t.Helper()
	p, _ := a.Params()
	signature := make([]byte, p.Output)
	var r [32]byte
	copy(r[:], rnd)
	write := func(w io.Writer) { _, _ = w.Write(message) }
	switch a {
	case MLDSA44:
		sign44(unpack(t, new(mldsa44.PrivateKey), secret), write, r, signature)
	case MLDSA65:
		sign65(unpack(t, new(mldsa65.PrivateKey), secret), write, r, signature)
	case MLDSA87:
		sign87(unpack(t, new(mldsa87.PrivateKey), secret), write, r, signature)
	}
	return signature
}

func verifyInternal(t *testing.T, a Algorithm, public, message, signature []byte) bool {
	t.Helper()
	write := func(w io.Writer) { _, _ = w.Write(message) }
	switch a {
	case MLDSA44:
		return verify44(unpack(t, new(mldsa44.PublicKey), public), write, signature)
	case MLDSA65:
		return verify65(unpack(t, new(mldsa65.PublicKey), public), write, signature)
	default:
		return verify87(unpack(t, new(mldsa87.PublicKey), public), write, signature)
	}
}

// SLH-DSA. Without QV_SOAK there are fewer keys and signatures: of the small sets,
// which take half a second each, one of each.
func TestACVPSLHDSA(t *testing.T) {
	const dir = "sign/slhdsa/testdata/"
	keys := circlVectors(t, dir+"keyGen_prompt.json.gz", dir+"keyGen_results.json.gz")
	sign := circlVectors(t, dir+"sigGen_prompt.json.gz", dir+"sigGen_results.json.gz")
	verify := circlVectors(t, dir+"verify_prompt.json.gz", dir+"verify_results.json.gz")
	forProviders(t, SLHDSA128f, func(v *vectors) {
		for _, c := range few(keys) {
			v.keyGen(c)
		}
		for _, c := range few(sign) {
			v.sigGen(c)
		}
		for _, c := range verify {
			v.sigVer(c)
		}
	})
}

// few leaves one case of each small set, and two of each group of the others,
// unless all are to be run.
func few(cases []vectorCase) []vectorCase {
	if full() {
		return cases
	}
	small, fast := make(map[string]int), make(map[*fields]int)
	return slices.DeleteFunc(slices.Clone(cases), func(c vectorCase) bool {
		set := c.group.ParameterSet
		if _, err := ParseAlgorithm(set); err != nil || !c.fits() {
			return true
		}
		if strings.HasSuffix(set, "s") {
			if c.in.HashAlg == "" {
				small[set]++
			}
			return small[set] != 1 || c.in.HashAlg != ""
		}
		fast[c.group]++
		return fast[c.group] > 2
	})
}

// fits tells whether a case pre-hashes with something that we have.
func (c vectorCase) fits() bool {
	if c.in.HashAlg == "" {
		return true
	}
	_, err := ParseAlgorithm(c.in.HashAlg)
	return err == nil
}
