package main

import (
	"bytes"
	"io/fs"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/pqc/keyfile"
)

const goodPassphrase = "a passphrase that is long enough\n"

// Keys over their whole life, by the command line and a daemon on this host.
func TestKeys(t *testing.T) {
	l := startLab(t)
	dir := t.TempDir()
	in := func(name string) string { return filepath.Join(dir, name) }
	pass := writeFile(t, []byte(goodPassphrase))
	l.refused(t, 10, "PQC_ERR_KEYSTORE", "crypto", "key", "generate", "--algorithm", "ML-DSA-44")
	l.refused(t, 2, "QV_ERR_INVAL", "crypto", "keystore", "init", "--no-passphrase")
	l.refused(t, 6, "QUAC100_ERR_NOT_FOUND", "crypto", "keystore", "init", "--no-passphrase", "--sealed-by", "card")
	l.refused(t, 2, "QV_ERR_INVAL", "crypto", "keystore", "init", "--no-passphrase", "--sealed-by", "passphrase")
	l.refused(t, 2, "QV_ERR_CONFIG", "crypto", "keystore", "init", "--no-passphrase", "--sealed-by", "nobody")
	var ks spec.Keystore
	l.must(t, &ks, "crypto", "keystore", "init", "--passphrase-file", pass)
	if ks.State != spec.KeystoreStateOpen || !ks.Memory.NoCoreDump {
		t.Errorf("%+v", ks)
	}
	l.refused(t, 5, "QV_ERR_EXIST", "crypto", "keystore", "init", "--passphrase-file", pass)

	var release, disk spec.Key
	l.must(t, &release, "crypto", "key", "generate", "--algorithm", "ml-dsa-65", "--label", "release", "--extractable")
	l.must(t, &disk, "crypto", "key", "generate", "--algorithm", "ML-KEM-768", "--label", "disk")
	message := writeFile(t, bytes.Repeat([]byte("a message "), 200_000)) // more than a JSON body may have
	l.must(t, nil, "crypto", "sign", "--key", "release", "--context", "c", "--signature", in("sig"), message)
	l.must(t, nil, "crypto", "verify", "--key", "release", "--context", "c", "--signature", in("sig"), message)
	l.refused(t, 10, "PQC_ERR_VERIFY", "crypto", "verify", "--key", "release", "--signature", in("sig"), message)
	l.must(t, nil, "crypto", "key", "export", "release", "--public", "--file", in("pub"))
	l.must(t, nil, "crypto", "verify", "--public-key", in("pub"), "--context", "c", "--signature", in("sig"), message)
	l.refused(t, 10, "PQC_ERR_ALGORITHM", "crypto", "sign", "--key", "disk", "--signature", in("none"), message)

	l.must(t, nil, "crypto", "encaps", "--key", "disk", "--ciphertext", in("ct"), "--shared", in("s1"))
	l.must(t, nil, "crypto", "decaps", "--key", "disk", "--shared", in("s2"), in("ct"))
	s1, s2 := read(t, in("s1")), read(t, in("s2"))
	if len(s1) != 32 || !bytes.Equal(s1, s2) {
		t.Errorf("shared keys %x and %x", s1, s2)
	}

	l.refused(t, 4, "QV_ERR_PERM", "crypto", "key", "export", "disk", "--plain", "--file", in("disk.pem"))
	l.must(t, nil, "crypto", "key", "export", "release", "--plain", "--file", in("plain.pem"))
	l.must(t, nil, "crypto", "key", "export", "release", "--passphrase-file", pass, "--file", in("enc.pem"))
	key, err := keyfile.ParsePrivate(read(t, in("plain.pem")))
	if err != nil {
		t.Fatal(err)
	}
	var again spec.Key
	l.must(t, &again, "crypto", "key", "import", in("enc.pem"), "--passphrase-file", pass, "--label", "again")
	if !bytes.Equal(again.PublicKey, release.PublicKey) || again.Origin != spec.KeyOriginImported {
		t.Errorf("%+v", again)
	}
	l.keysLater(t, pass, in("ct"))
	l.nowhere(t, key.Seed, s1, []byte(strings.TrimSpace(goodPassphrase)))
}

// keysLater is what happens to keys in the end, and over a restart of the daemon.
func (l *lab) keysLater(t *testing.T, pass, ciphertext string) {
	t.Helper()
	var rotated spec.Key
	l.must(t, &rotated, "crypto", "key", "rotate", "disk")
	if rotated.Version != 2 || rotated.Replaces == "" {
		t.Errorf("%+v", rotated)
	}
	l.must(t, nil, "crypto", "key", "expire", rotated.Replaces)
	none := filepath.Join(t.TempDir(), "none")
	l.refused(t, 10, "PQC_ERR_KEY_EXPIRED", "crypto", "decaps", "--key", rotated.Replaces, "--shared", none, ciphertext)
	l.stop(t)
	l.start(t)
	l.refused(t, 10, "PQC_ERR_KEYSTORE", "crypto", "key", "list")
	l.refused(t, 4, "QV_ERR_PERM", "crypto", "keystore", "unlock", "--passphrase-file", writeFile(t, []byte("another one, just as long\n")))
	l.must(t, nil, "crypto", "keystore", "unlock", "--passphrase-file", pass)
	var list spec.KeyList
	l.must(t, &list, "crypto", "key", "list")
	if len(list.Items) != 4 {
		t.Errorf("%d keys after a restart", len(list.Items))
	}
	l.must(t, nil, "crypto", "key", "destroy", "again")
	l.refused(t, 10, "PQC_ERR_KEY_NOT_FOUND", "crypto", "key", "show", "again")
}

// refused holds that a command fails with a code and leaves no file.
func (l *lab) refused(t *testing.T, exit int, name string, args ...string) {
	t.Helper()
	r := l.run(t, "", args...)
	if r.exit != exit || !strings.HasPrefix(r.err, "Error: "+name+" (") {
		t.Errorf("%v: exit %d, want %d; %s", args, r.exit, exit, r.err)
	}
}

func read(t *testing.T, path string) []byte {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	return data
}

// nowhere looks for secrets in all that the daemon wrote.
func (l *lab) nowhere(t *testing.T, secrets ...[]byte) {
	t.Helper()
	files := 0
	err := filepath.WalkDir(l.dir, func(path string, d fs.DirEntry, err error) error {
		if err != nil || !d.Type().IsRegular() {
			return err
		}
		files++
		data := read(t, path)
		for _, s := range secrets {
			if bytes.Contains(data, s) {
				t.Errorf("a secret is in %s", path)
			}
		}
		return nil
	})
	if err != nil || files < 3 {
		t.Errorf("%d files, %v", files, err)
	}
	for _, s := range secrets {
		if strings.Contains(l.stderr.String(), string(s)) {
			t.Error("a secret is on the daemon's standard error")
		}
	}
}

// What the machine measures and makes is there, in the form that is promised.
func TestRandomAndBench(t *testing.T) {
	l := startLab(t)
	if r := l.run(t, "", "crypto", "qrng", "read", "--bytes", "24"); r.exit != 0 || !regexp.MustCompile(`^[0-9a-f]{48}\n$`).MatchString(r.out) {
		t.Errorf("%+v", r)
	}
	l.refused(t, 2, "QV_ERR_INVAL", "crypto", "qrng", "read", "--bytes", "65537")
	var b spec.BenchResult
	l.must(t, &b, "crypto", "bench", "ml-kem-768", "ML-DSA-44", "--duration", "1ms")
	if len(b.Items) != 6 || b.Provider != "software" {
		t.Errorf("%+v", b)
	}
	for _, i := range b.Items {
		if i.Operations < 1 || i.Nanoseconds < 1 {
			t.Errorf("%+v", i)
		}
	}
	l.refused(t, 10, "PQC_ERR_ALGORITHM", "crypto", "bench", "RSA")
	l.refused(t, 10, "PQC_ERR_ALGORITHM", "crypto", "bench", "SHA2-256")
	l.refused(t, 6, "QUAC100_ERR_NOT_FOUND", "crypto", "quac100", "self-test", "0000:00:01.0")
	l.refused(t, 6, "QUAC100_ERR_NOT_FOUND", "crypto", "quac100", "reset", "0000:00:01.0")
}
