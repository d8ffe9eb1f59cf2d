package keyfile

import (
	"bytes"
	"slices"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

func provider(t testing.TB) pqc.Provider {
	t.Helper()
	s, err := pqc.Open(t.Context(), pqc.Options{})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = s.Close() })
	return s
}

// pairs are the algorithms with key pairs.
func pairs() (all []pqc.Params) {
	for _, p := range pqc.Algorithms() {
		if p.PublicKey != 0 {
			all = append(all, p)
		}
	}
	return all
}

// quick leaves the small sets of SLH-DSA out, whose files are those of the fast
// ones and whose keys take half a second.
func quick() []pqc.Params {
	return slices.DeleteFunc(pairs(), func(p pqc.Params) bool { return strings.HasSuffix(p.Name, "s") })
}

// generate makes a key pair from a seed that is different for each n.
func generate(t testing.TB, by pqc.Provider, p pqc.Params, n byte) (seed, public, expanded []byte) {
	t.Helper()
	seed, public, expanded = bytes.Repeat([]byte{n}, p.Seed), make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	if err := by.GenerateKey(t.Context(), p.Algorithm, seed, public, expanded); err != nil {
		t.Fatal(err)
	}
	return seed, public, expanded
}

func forms(p pqc.Params, seed, expanded []byte) []*Private {
	all := []*Private{{Algorithm: p.Algorithm, Expanded: expanded}}
	if !isSLH(p.Algorithm) {
		all = append(all, &Private{p.Algorithm, seed, nil}, &Private{p.Algorithm, seed, expanded})
	}
	return all
}

func TestRoundTrip(t *testing.T) {
	by := provider(t)
	for _, p := range quick() {
		seed, public, expanded := generate(t, by, p, 7)
		spki, err := MarshalPublic(p.Algorithm, public)
		if err != nil {
			t.Fatal(err)
		}
		for _, file := range [][]byte{spki, EncodePublic(spki)} {
			if a, got, err := ParsePublic(file); err != nil || a != p.Algorithm || !bytes.Equal(got, public) {
				t.Errorf("%s: public key comes back as %s, %v", p.Name, a, err)
			}
		}
		for _, k := range forms(p, seed, expanded) {
			pkcs8, err := MarshalPrivate(k)
			if err != nil {
				t.Fatal(err)
			}
			for _, file := range [][]byte{pkcs8, EncodePrivate(pkcs8)} {
				got, err := ParsePrivate(file)
				if err != nil || got.Algorithm != k.Algorithm || !bytes.Equal(got.Seed, k.Seed) || !bytes.Equal(got.Expanded, k.Expanded) {
					t.Fatalf("%s: %v", p.Name, err)
				}
				if derived, err := got.Public(t.Context(), by); err != nil || !bytes.Equal(derived, public) {
					t.Errorf("%s: public key derived from a seed of %d and %d bytes: %v", p.Name, len(k.Seed), len(k.Expanded), err)
				}
				got.Wipe()
				if !bytes.Equal(got.Secret(), make([]byte, len(got.Secret()))) {
					t.Errorf("%s: Wipe leaves the key", p.Name)
				}
			}
		}
	}
}

// Halves that do not belong together are found when the public key is derived.
func TestContradictions(t *testing.T) {
	by := provider(t)
	for _, p := range quick() {
		seed, _, expanded := generate(t, by, p, 1)
		otherSeed, _, other := generate(t, by, p, 2)
		half := len(expanded) / 2
		wrong := map[string]*Private{
			"two keys spliced": {Algorithm: p.Algorithm, Expanded: slices.Concat(expanded[:half], other[half:])},
		}
		if !isSLH(p.Algorithm) {
			wrong["seed of another key"] = &Private{p.Algorithm, otherSeed, expanded}
			wrong["expanded form of another key"] = &Private{p.Algorithm, seed, other}
		}
		for name, k := range wrong {
			if _, err := k.Public(t.Context(), by); qverr.CodeOf(err) != qverr.PQCKeygen {
				t.Errorf("%s, %s: %v", p.Name, name, err)
			}
		}
	}
}

func TestMalformed(t *testing.T) {
	by := provider(t)
	p, _ := pqc.MLKEM768.Params()
	seed, public, expanded := generate(t, by, p, 3)
	spki, _ := MarshalPublic(p.Algorithm, public)
	pkcs8, _ := MarshalPrivate(&Private{p.Algorithm, seed, expanded})
	change := func(file []byte, at int, to byte) []byte {
		c := bytes.Clone(file)
		c[at] = to
		return c
	}
	arc := bytes.Index(spki, []byte{4, 4, 2}) + 2 // of the identifier: …3.4.4.2
	for name, file := range map[string][]byte{
		"nothing": nil, "cut": spki[:len(spki)-1], "more": append(bytes.Clone(spki), 0), "not a sequence": change(spki, 0, 0x31),
		"the key of another set": change(spki, arc, 3), "wrong PEM type": EncodePrivate(spki), "PEM without end": []byte("-----BEGIN PUBLIC KEY-----\nAAAA\n"),
		"two blocks": append(EncodePublic(spki), EncodePublic(spki)...),
	} {
		if _, _, err := ParsePublic(file); qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("public key, %s: %v", name, err)
		}
	}
	if _, _, err := ParsePublic(change(spki, arc, 9)); qverr.CodeOf(err) != qverr.PQCAlgorithm {
		t.Errorf("unknown algorithm: %v", err)
	}
	version := bytes.Index(pkcs8, []byte{2, 1, 0}) + 2
	for name, file := range map[string][]byte{
		"nothing": nil, "cut": pkcs8[:len(pkcs8)-1], "version 2": change(pkcs8, version, 2), "public key": spki, "PEM of a public key": EncodePublic(pkcs8),
		"the key of another set": change(pkcs8, bytes.Index(pkcs8, []byte{4, 4, 2})+2, 1),
	} {
		if _, err := ParsePrivate(file); qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("secret key, %s: %v", name, err)
		}
	}
	for name, k := range map[string]*Private{
		"empty": {Algorithm: p.Algorithm}, "short seed": {p.Algorithm, seed[1:], nil}, "short expanded form": {p.Algorithm, nil, expanded[1:]},
		"SLH-DSA has no seed": {pqc.SLHDSA128f, make([]byte, 48), nil},
	} {
		if _, err := MarshalPrivate(k); qverr.CodeOf(err) != qverr.Inval {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := MarshalPublic(pqc.AES256GCM, nil); qverr.CodeOf(err) != qverr.PQCAlgorithm {
		t.Errorf("a cipher: %v", err)
	}
}

// What can be read is written as the same bytes again, PEM, attributes and
// version 1 apart.
func FuzzParse(f *testing.F) {
	by := provider(f)
	for _, p := range pairs()[:6] {
		seed, public, expanded := generate(f, by, p, 9)
		spki, _ := MarshalPublic(p.Algorithm, public)
		f.Add(spki)
		for _, k := range forms(p, seed, expanded) {
			pkcs8, _ := MarshalPrivate(k)
			f.Add(pkcs8)
			f.Add(EncodePrivate(pkcs8))
		}
	}
	f.Fuzz(func(t *testing.T, file []byte) {
		if a, public, err := ParsePublic(file); err == nil && !isPEM(file) {
			if again, err := MarshalPublic(a, public); err != nil || !bytes.Equal(again, file) {
				t.Errorf("%s public key is written differently: %v", a, err)
			}
		}
		if k, err := ParsePrivate(file); err == nil {
			again, err := MarshalPrivate(k)
			if err != nil {
				t.Fatal(err)
			}
			if k2, err := ParsePrivate(again); err != nil || !bytes.Equal(k2.Secret(), k.Secret()) {
				t.Errorf("%s secret key: %v", k.Algorithm, err)
			}
		}
	})
}
