package keyfile

import (
	"bytes"
	"encoding/pem"
	"errors"
	"testing"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

func seedKey(t testing.TB) []byte {
	t.Helper()
	plain, err := MarshalPrivate(&Private{Algorithm: pqc.MLDSA65, Seed: bytes.Repeat([]byte{7}, 32)})
	if err != nil {
		t.Fatal(err)
	}
	return plain
}

func TestEncrypted(t *testing.T) {
	plain, secret := seedKey(t), []byte("a passphrase")
	file, err := EncryptPrivate(plain, secret)
	if err != nil {
		t.Fatal(err)
	}
	if !IsEncrypted(file) || IsEncrypted(EncodePrivate(plain)) || IsEncrypted(plain) {
		t.Error("what is encrypted is not known as such")
	}
	got, err := DecryptPrivate(file, secret)
	if err != nil || !bytes.Equal(got, plain) {
		t.Errorf("%x, %v", got, err)
	}
	for _, other := range []string{"", "another passphrase", "a passphrase "} {
		if _, err := DecryptPrivate(file, []byte(other)); !errors.Is(err, qverr.PQCDecrypt) {
			t.Errorf("%q: %v", other, err)
		}
	}
	if _, err := DecryptPrivate(EncodePrivate(plain), secret); !errors.Is(err, qverr.Inval) {
		t.Errorf("a plain one: %v", err)
	}
}

// OpenSSL reads ours, and we read OpenSSL's.
func TestEncryptedByOpenSSL(t *testing.T) {
	o := newOpenSSL(t)
	plain := seedKey(t)
	file, err := EncryptPrivate(plain, []byte("a passphrase"))
	if err != nil {
		t.Fatal(err)
	}
	o.write("ours.pem", file)
	o.run("pkey", "-in", "ours.pem", "-passin", "pass:a passphrase", "-out", "opened.pem")
	got, err := ParsePrivate(o.read("opened.pem"))
	if err != nil || !bytes.Equal(got.Seed, bytes.Repeat([]byte{7}, 32)) {
		t.Errorf("ours by OpenSSL: %v", err)
	}
	o.write("plain.pem", EncodePrivate(plain))
	o.run("pkcs8", "-topk8", "-in", "plain.pem", "-v2", "aes-256-cbc", "-v2prf", "hmacWithSHA256", "-passout", "pass:theirs", "-out", "theirs.pem")
	opened, err := DecryptPrivate(o.read("theirs.pem"), []byte("theirs"))
	if err != nil {
		t.Fatal(err)
	}
	if key, err := ParsePrivate(opened); err != nil || !bytes.Equal(key.Seed, bytes.Repeat([]byte{7}, 32)) {
		t.Errorf("OpenSSL's by us: %v", err)
	}
	o.run("pkcs8", "-topk8", "-in", "plain.pem", "-v2", "aes-128-cbc", "-passout", "pass:theirs", "-out", "weak.pem")
	if _, err := DecryptPrivate(o.read("weak.pem"), []byte("theirs")); !errors.Is(err, qverr.Unsupported) {
		t.Errorf("another cipher: %v", err)
	}
}

// FuzzDecrypt: no file makes the parser fall over.
func FuzzDecrypt(f *testing.F) {
	file, err := encryptPrivate(seedKey(f), []byte("x"), 1)
	if err != nil {
		f.Fatal(err)
	}
	block, _ := pem.Decode(file)
	f.Add(block.Bytes)
	f.Fuzz(func(t *testing.T, data []byte) {
		if bytes.Contains(data, []byte{0x02, 0x03}) || bytes.Contains(data, []byte{0x02, 0x04}) {
			t.Skip("a count of iterations that takes its time")
		}
		_, _ = DecryptPrivate(data, []byte("x"))
	})
}
