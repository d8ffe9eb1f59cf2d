package pqc

import (
	"bytes"
	"slices"
	"testing"

	"quantavirt/internal/qverr"
)

// AES-256-GCM with tags of 16 and nonces of 12 bytes.
func TestACVPAEAD(t *testing.T) {
	dir := fetchModule(t, geomys, geomysSum)
	forProviders(t, AES256GCM, func(v *vectors) {
		for _, c := range geomysVectors(v.T, dir, "ACVP-AES-GCM") {
			if c.group.KeyLen == 256 && c.group.TagLen == 128 && c.group.IVLen == 96 {
				v.gcm(c)
			}
		}
	})
}

func (v *vectors) gcm(c vectorCase) {
	k, err := v.p.AEAD(v.Context(), AES256GCM, c.in.Key)
	if err != nil {
		v.Fatal(err)
	}
	defer k.Destroy()
	if c.group.Direction == "encrypt" {
		got, err := k.Seal(v.Context(), nil, c.in.IV, c.in.PT, c.in.AAD)
		v.no(c, err)
		v.same(c, "ciphertext and tag", got, slices.Concat(c.out.CT, c.out.Tag))
		v.count.add("AES-256-GCM", "encrypt")
		return
	}
	got, err := k.Open(v.Context(), nil, c.in.IV, slices.Concat(c.in.CT, c.in.Tag), c.in.AAD)
	if refused := c.out.TestPassed != nil && !*c.out.TestPassed; refused {
		if qverr.CodeOf(err) != qverr.PQCDecrypt {
			v.Errorf("%s: %v", c, err)
		}
	} else if v.no(c, err); !bytes.Equal(got, c.out.PT) {
		v.Errorf("%s: another plaintext", c)
	}
	v.count.add("AES-256-GCM", "decrypt")
}

// SHA-2, SHA-3 and SHAKE: single messages, lengths of output, and the Monte Carlo test.
func TestACVPHashes(t *testing.T) {
	dir := fetchModule(t, geomys, geomysSum)
	v := &vectors{t, testSoftware(t), tally{}}
	for _, a := range []Algorithm{SHA256, SHA384, SHA512, SHA3_256, SHA3_384, SHA3_512, SHAKE128, SHAKE256} {
		for _, c := range geomysVectors(t, dir, a.String()) {
			if c.in.Len%8 != 0 || c.in.OutLen%8 != 0 {
				continue
			}
			switch p, _ := a.Params(); {
			case c.group.TestType == "MCT" && p.Family == FamilyXOF:
				v.monteCarloXOF(a, c)
			case c.group.TestType == "MCT":
				v.monteCarlo(a, c)
			default:
				v.same(c, a.String(), v.hash(a, c.in.Msg[:c.in.Len/8], c.in.OutLen/8), c.out.MD)
			}
			v.count.add(a.String(), c.group.TestType)
		}
	}
	v.count.report(t, "hashes")
}

func (v *vectors) hash(a Algorithm, message []byte, size int) []byte {
	v.Helper()
	if p, _ := a.Params(); p.Family == FamilyHash {
		h, err := v.p.Hash(a)
		if err != nil {
			v.Fatal(err)
		}
		h.Write(message)
		return h.Sum(nil)
	}
	x, err := v.p.XOF(a)
	if err != nil {
		v.Fatal(err)
	}
	_, _ = x.Write(message)
	out := make([]byte, size)
	_, _ = x.Read(out)
	return out
}

// chain is what the Monte Carlo test is to give: 100 results, of which the first
// 10 do without QV_SOAK.
func chain(c vectorCase) []struct{ MD hexBytes } {
	if full() {
		return c.out.ResultsArray
	}
	return c.out.ResultsArray[:10]
}

// monteCarlo is the test of the ACVP specifications of SHA-2 and SHA-3: a chain
// of 1000 hashes gives each of 100 results.
func (v *vectors) monteCarlo(a Algorithm, c vectorCase) {
	seed := []byte(c.in.Msg)
	sha2 := a == SHA256 || a == SHA384 || a == SHA512
	for i, want := range chain(c) {
		last := [3][]byte{seed, seed, seed}
		for range 1000 {
			message := last[2]
			if sha2 {
				message = slices.Concat(last[0], last[1], last[2])
			}
			last = [3][]byte{last[1], last[2], v.hash(a, message, 0)}
		}
		if seed = last[2]; !bytes.Equal(seed, want.MD) {
			v.Fatalf("%s: step %d of the Monte Carlo test", a, i)
		}
	}
}

// monteCarloXOF is that of SHAKE, where each hash decides on the length of the next.
func (v *vectors) monteCarloXOF(a Algorithm, c vectorCase) {
	md := []byte(c.in.Msg)
	least, most := c.group.MinOutLen/8, c.group.MaxOutLen/8
	size := most
	for i, want := range chain(c) {
		for range 1000 {
			message := make([]byte, 16)
			copy(message, md)
			md = v.hash(a, message, size)
			right := int(md[len(md)-2])<<8 | int(md[len(md)-1])
			size = least + right%(most-least+1)
		}
		if !bytes.Equal(md, want.MD) {
			v.Fatalf("%s: step %d of the Monte Carlo test", a, i)
		}
	}
}

// HKDF-SHA3-256 as the key derivation of SP 800-56C.
func TestACVPKDF(t *testing.T) {
	dir := fetchModule(t, geomys, geomysSum)
	v := &vectors{t, testSoftware(t), tally{}}
	for _, c := range geomysVectors(t, dir, "KDA") {
		if k := c.group.KDFConfiguration; k.KDFType != "hkdf" || k.HMACAlg != "SHA3-256" {
			continue
		}
		if pattern := c.group.KDFConfiguration.FixedInfoPattern; pattern != "uPartyInfo||vPartyInfo" {
			t.Fatalf("info is made of %s", pattern)
		}
		u, w := c.in.FixedInfoPartyU, c.in.FixedInfoPartyV
		info := slices.Concat(u.PartyID, u.EphemeralData, w.PartyID, w.EphemeralData)
		key := make([]byte, max(len(c.out.DKM), 1))
		v.no(c, v.p.KDF(HKDFSHA3_256, key, c.in.KDFParameter.Z, c.in.KDFParameter.Salt, info))
		if c.out.TestPassed == nil {
			v.same(c, "key", key, c.out.DKM)
			v.count.add("HKDF-SHA3-256", "derive")
		}
	}
	v.count.report(t, "HKDF")
}
