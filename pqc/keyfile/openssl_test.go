package keyfile

import (
	"bytes"
	"crypto/rand"
	"encoding/hex"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/image/tools"
	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// openssl is the program of Debian 13 and a directory for its files.
type openssl struct {
	*testing.T
	root tools.Root
	dir  string
}

func newOpenSSL(t *testing.T) *openssl {
	t.Helper()
	root, err := tools.Ensure(t.Context(), os.Stderr)
	if err != nil {
		t.Fatal(err)
	}
	o := &openssl{t, root, t.TempDir()}
	if v := string(o.run("version")); !strings.HasPrefix(v, "OpenSSL 3.5.") {
		t.Fatalf("this is %s", v)
	}
	return o
}

func (o *openssl) run(args ...string) []byte {
	o.Helper()
	cmd := o.root.Command("openssl", args...)
	cmd.Env = []string{"OPENSSL_CONF=/dev/null"}
	cmd.Dir = o.dir
	var stderr bytes.Buffer
	cmd.Stderr = &stderr
	out, err := cmd.Output()
	if err != nil {
		o.Fatalf("openssl %s: %v\n%s", strings.Join(args, " "), err, &stderr)
	}
	return out
}

func (o *openssl) write(name string, data []byte) {
	o.Helper()
	if err := os.WriteFile(filepath.Join(o.dir, name), data, 0o600); err != nil {
		o.Fatal(err)
	}
}

func (o *openssl) read(name string) []byte {
	o.Helper()
	data, err := os.ReadFile(filepath.Join(o.dir, name))
	if err != nil {
		o.Fatal(err)
	}
	return data
}

func (o *openssl) must(err error) {
	o.Helper()
	if err != nil {
		o.Fatal(err)
	}
}

// OpenSSL and we read each other's keys, in every form, open each other's
// ciphertexts and verify each other's signatures, over random keys: one of each
// algorithm, or 25 (5 of the slow sets) with QV_SOAK.
func TestOpenSSL(t *testing.T) {
	by := provider(t)
	o := newOpenSSL(t)
	for _, p := range pairs() {
		rounds := 1
		if os.Getenv("QV_SOAK") != "" {
			if rounds = 25; isSLH(p.Algorithm) {
				rounds = 5
			}
		}
		for range rounds {
			o.theirKey(by, p)
			o.ourKey(by, p)
		}
		t.Logf("%-18s %d keys of each side", p.Name, rounds)
	}
}

func (o *openssl) theirKey(by pqc.Provider, p pqc.Params) {
	o.Helper()
	o.run("genpkey", "-algorithm", p.Name, "-out", "key.pem")
	o.run("pkey", "-in", "key.pem", "-pubout", "-out", "public.pem")
	k, err := ParsePrivate(o.read("key.pem"))
	o.must(err)
	_, public, err := ParsePublic(o.read("public.pem"))
	o.must(err)
	derived, err := k.Public(o.Context(), by)
	if err != nil || k.Algorithm != p.Algorithm || !bytes.Equal(derived, public) {
		o.Fatalf("%s: their key gives another public key here: %v", p.Name, err)
	}
	o.use(by, p, k.Secret(), public)
}

func (o *openssl) ourKey(by pqc.Provider, p pqc.Params) {
	o.Helper()
	seed, public, expanded := make([]byte, p.Seed), make([]byte, p.PublicKey), make([]byte, p.SecretKey)
	_, _ = rand.Read(seed)
	o.must(by.GenerateKey(o.Context(), p.Algorithm, seed, public, expanded))
	spki, err := MarshalPublic(p.Algorithm, public)
	o.must(err)
	for _, k := range forms(p, seed, expanded) {
		pkcs8, err := MarshalPrivate(k)
		o.must(err)
		o.write("key.pem", EncodePrivate(pkcs8))
		o.run("pkey", "-in", "key.pem", "-pubout", "-outform", "DER", "-out", "public.der")
		if !bytes.Equal(o.read("public.der"), spki) {
			o.Fatalf("%s: our key with a seed of %d and an expanded form of %d bytes gives another public key there", p.Name, len(k.Seed), len(k.Expanded))
		}
	}
	o.write("public.pem", EncodePublic(spki))
	o.use(by, p, expanded, public)
}

// use exchanges what a key makes; key.pem and public.pem are its files.
func (o *openssl) use(by pqc.Provider, p pqc.Params, secret, public []byte) {
	o.Helper()
	if p.Family == pqc.FamilyKEM {
		o.encapsulate(by, p, secret, public)
		return
	}
	signer, err := by.Signer(o.Context(), p.Algorithm, secret)
	o.must(err)
	defer signer.Destroy()
	verifier, err := by.Verifier(o.Context(), p.Algorithm, public)
	o.must(err)
	message, context := make([]byte, 1000), make([]byte, 17)
	_, _ = rand.Read(message)
	_, _ = rand.Read(context)
	options := &pqc.SignOptions{Context: context}
	opt := "hexcontext-string:" + hex.EncodeToString(context)
	o.write("message", message)

	signature := make([]byte, p.Output)
	o.must(signer.Sign(o.Context(), signature, message, options))
	o.write("ours", signature)
	o.run("pkeyutl", "-verify", "-pubin", "-inkey", "public.pem", "-rawin", "-in", "message", "-sigfile", "ours", "-pkeyopt", opt)

	o.run("pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "message", "-out", "theirs", "-pkeyopt", opt)
	theirs := o.read("theirs")
	o.must(verifier.Verify(o.Context(), message, theirs, options))
	theirs[len(theirs)/2] ^= 1
	if err := verifier.Verify(o.Context(), message, theirs, options); qverr.CodeOf(err) != qverr.PQCVerify {
		o.Errorf("%s: their signature with a flipped bit: %v", p.Name, err)
	}
}

func (o *openssl) encapsulate(by pqc.Provider, p pqc.Params, secret, public []byte) {
	o.Helper()
	e, err := by.Encapsulator(o.Context(), p.Algorithm, public)
	o.must(err)
	d, err := by.Decapsulator(o.Context(), p.Algorithm, secret)
	o.must(err)
	defer d.Destroy()

	ciphertext, shared := make([]byte, p.Output), make([]byte, p.Shared)
	o.must(e.Encapsulate(o.Context(), ciphertext, shared))
	o.write("ours", ciphertext)
	o.run("pkeyutl", "-decap", "-inkey", "key.pem", "-in", "ours", "-secret", "shared")
	if !bytes.Equal(o.read("shared"), shared) {
		o.Errorf("%s: our ciphertext gives another shared key there", p.Name)
	}

	o.run("pkeyutl", "-encap", "-pubin", "-inkey", "public.pem", "-out", "theirs", "-secret", "shared")
	theirs := o.read("theirs")
	o.must(d.Decapsulate(o.Context(), shared, theirs))
	if !bytes.Equal(o.read("shared"), shared) {
		o.Errorf("%s: their ciphertext gives another shared key here", p.Name)
	}
	// Rejection is implicit, and the same on both sides.
	theirs[0] ^= 1
	o.write("changed", theirs)
	o.run("pkeyutl", "-decap", "-inkey", "key.pem", "-in", "changed", "-secret", "rejected")
	o.must(d.Decapsulate(o.Context(), shared, theirs))
	if !bytes.Equal(o.read("rejected"), shared) || bytes.Equal(o.read("shared"), shared) {
		o.Errorf("%s: the rejected ciphertext gives another shared key", p.Name)
	}
}
