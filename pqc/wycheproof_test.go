package pqc

import (
	"bytes"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

const wycheproofSum = "h1:5BKKVVVj676FUWirLcouEEL6GCYR9X0opkMlEUck8FY="

// wycheproofCase has what the files that are used here need.
type wycheproofCase struct {
	TcID                               int `json:"tcId"`
	Comment, Result                    string
	Flags                              []string
	Seed, EK, C, K                     hexBytes
	Msg, Ctx, Sig                      hexBytes
	Key, IV, AAD, CT, Tag              hexBytes
	PrivateKey, PrivateSeed, PublicKey hexBytes // of the group
	ParameterSet                       string   // of the group
	KeySize, IVSize, TagSize           int      // of the group, in bits
}

func wycheproofCases(t *testing.T, dir, file string) (cases []wycheproofCase) {
	t.Helper()
	f, err := os.Open(filepath.Join(dir, "testvectors_v1", file))
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	var doc struct {
		NumberOfTests int
		TestGroups    []struct {
			wycheproofCase
			Tests []wycheproofCase
		}
	}
	decodeJSON(t, f, &doc)
	for _, g := range doc.TestGroups {
		for _, c := range g.Tests {
			c.PrivateKey, c.PrivateSeed, c.PublicKey, c.ParameterSet = g.PrivateKey, g.PrivateSeed, g.PublicKey, g.ParameterSet
			c.KeySize, c.IVSize, c.TagSize = g.KeySize, g.IVSize, g.TagSize
			cases = append(cases, c)
		}
	}
	if len(cases) != doc.NumberOfTests {
		t.Fatalf("%s: %d cases of %d", file, len(cases), doc.NumberOfTests)
	}
	return cases
}

// verdict compares an error with what a case wants: one of the codes if it is invalid.
func (v *vectors) verdict(a Algorithm, c wycheproofCase, err error, refusals ...qverr.Code) {
	v.Helper()
	if got := qverr.CodeOf(err); c.Result == "valid" && err != nil || c.Result != "valid" && !slices.Contains(refusals, got) {
		v.Errorf("%s case %d (%s): %s, but: %v", a, c.TcID, c.Comment, c.Result, err)
	}
	v.count.add(a.String(), c.Result)
}

func TestWycheproofKEM(t *testing.T) {
	dir := fetchModule(t, wycheproof, wycheproofSum)
	forProviders(t, MLKEM768, func(v *vectors) {
		for _, c := range wycheproofCases(v.T, dir, "mlkem_test.json") {
			a, err := ParseAlgorithm(c.ParameterSet)
			if err != nil {
				v.Fatal(err)
			}
			p, _ := a.Params()
			ciphertext, shared := make([]byte, p.Output), make([]byte, p.Shared)
			if c.Seed == nil {
				e, err := v.p.Encapsulator(v.Context(), a, c.EK)
				if err == nil {
					err = e.Encapsulate(v.Context(), ciphertext, shared)
				}
				v.verdict(a, c, err, qverr.PQCEncaps)
				continue
			}
			d, err := v.p.Decapsulator(v.Context(), a, c.Seed)
			if err == nil {
				err = d.Decapsulate(v.Context(), shared, c.C)
			}
			if v.verdict(a, c, err, qverr.PQCDecaps); !bytes.Equal(shared, c.K) {
				v.Errorf("%s case %d: another shared key", a, c.TcID)
			}
		}
	})
}

func TestWycheproofMLDSA(t *testing.T) {
	dir := fetchModule(t, wycheproof, wycheproofSum)
	forProviders(t, MLDSA65, func(v *vectors) {
		for _, a := range []Algorithm{MLDSA44, MLDSA65, MLDSA87} {
			set := "mldsa_" + strings.TrimPrefix(a.String(), "ML-DSA-")
			for _, file := range []string{"_sign_noseed_test.json", "_sign_seed_test.json"} {
				for _, c := range wycheproofCases(v.T, dir, set+file) {
					v.wycheproofSign(a, c)
				}
			}
			for _, c := range wycheproofCases(v.T, dir, set+"_verify_test.json") {
				verifier, err := v.p.Verifier(v.Context(), a, c.PublicKey)
				if err == nil {
					err = verifier.Verify(v.Context(), c.Msg, c.Sig, &SignOptions{Context: c.Ctx})
				}
				v.verdict(a, c, err, qverr.PQCVerify, qverr.PQCParamSet)
			}
		}
	})
}

func (v *vectors) wycheproofSign(a Algorithm, c wycheproofCase) {
	p, _ := a.Params()
	signature := make([]byte, p.Output)
	signer, err := v.p.Signer(v.Context(), a, or(c.PrivateKey, c.PrivateSeed))
	if err == nil {
		defer signer.Destroy()
		err = signer.Sign(v.Context(), signature, c.Msg, &SignOptions{Context: c.Ctx, Deterministic: true})
	}
	if v.verdict(a, c, err, qverr.PQCSign, qverr.PQCParamSet); err == nil && !bytes.Equal(signature, c.Sig) {
		v.Errorf("%s case %d (%s): another signature", a, c.TcID, c.Comment)
	}
}

func TestWycheproofAEAD(t *testing.T) {
	dir := fetchModule(t, wycheproof, wycheproofSum)
	forProviders(t, AES256GCM, func(v *vectors) {
		for a, file := range map[Algorithm]string{AES256GCM: "aes_gcm_test.json", ChaCha20Poly1305: "chacha20_poly1305_test.json"} {
			if !v.p.Supports(a) {
				continue
			}
			for _, c := range wycheproofCases(v.T, dir, file) {
				if c.KeySize == 256 && c.TagSize == 128 {
					v.wycheproofAEAD(a, c)
				}
			}
		}
	})
}

func (v *vectors) wycheproofAEAD(a Algorithm, c wycheproofCase) {
	k, err := v.p.AEAD(v.Context(), a, c.Key)
	if err != nil {
		v.Fatal(err)
	}
	defer k.Destroy()
	sealed := slices.Concat(c.CT, c.Tag)
	if c.IVSize != 96 { // allowed by SP 800-38D, not by us
		c.Result = "invalid"
	}
	opened, err := k.Open(v.Context(), nil, c.IV, sealed, c.AAD)
	if v.verdict(a, c, err, qverr.PQCDecrypt); err == nil && !bytes.Equal(opened, c.Msg) {
		v.Errorf("%s case %d: another plaintext", a, c.TcID)
	}
	if c.Result != "valid" {
		return
	}
	if got, err := k.Seal(v.Context(), nil, c.IV, c.Msg, c.AAD); err != nil || !bytes.Equal(got, sealed) {
		v.Errorf("%s case %d: sealed %x, %v", a, c.TcID, got, err)
	}
}
