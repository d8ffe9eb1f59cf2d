package image

import (
	"bytes"
	"errors"
	"io"
	"os"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/internal/bundle"
)

func TestUpdateKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first, err := UpdateKeys(dir)
	if err != nil || len(first) != 1 || first[0].Private == nil {
		t.Fatalf("%v %v", first, err)
	}
	info, err := os.Stat(filepath.Join(dir, "update-1.key"))
	if err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("private key: %v %v", info, err)
	}
	if _, err := NewUpdateKey(dir); err != nil {
		t.Fatal(err)
	}
	again, err := UpdateKeys(dir)
	if err != nil || len(again) != 2 || !bytes.Equal(again[0].Public, first[0].Public) || !again[0].Private.Equal(first[0].Private) {
		t.Errorf("second run: %v %v", again, err)
	}
	if bytes.Equal(again[0].Public, again[1].Public) {
		t.Error("two keys are one")
	}
	if err := os.Rename(filepath.Join(dir, "update-2.key"), filepath.Join(dir, "update-1.key")); err != nil {
		t.Fatal(err)
	}
	if _, err := UpdateKeys(dir); err == nil {
		t.Error("a private key beside another's public key")
	}
	if err := os.Remove(filepath.Join(dir, "update-1.key")); err != nil {
		t.Fatal(err)
	}
	if keys, err := UpdateKeys(dir); err != nil || keys[0].Private != nil {
		t.Errorf("only public keys: %v", err)
	}
	if err := os.WriteFile(filepath.Join(dir, "update-1.pub"), []byte("short"), 0o600); err != nil {
		t.Fatal(err)
	}
	if _, err := UpdateKeys(dir); err == nil {
		t.Error("a short public key")
	}
}

func TestParsePrivate(t *testing.T) {
	text, err := privateText([32]byte{1})
	if err != nil {
		t.Fatal(err)
	}
	if _, err := parsePrivate(text); err != nil {
		t.Error(err)
	}
	for name, bad := range map[string][]byte{
		"empty": nil, "no key": []byte("-----BEGIN PRIVATE KEY-----\nAAAA\n-----END PRIVATE KEY-----\n"),
		"another type": bytes.ReplaceAll(text, []byte(pemType), []byte("EC PRIVATE KEY")),
	} {
		if _, err := parsePrivate(bad); err == nil {
			t.Errorf("%s was taken", name)
		}
	}
}

func TestBundle(t *testing.T) {
	dir := t.TempDir()
	file := func(name, text string) string {
		path := filepath.Join(dir, name)
		if err := os.WriteFile(path, []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		return path
	}
	o := BundleOptions{
		Out: filepath.Join(dir, "x.qvu"), Keys: filepath.Join(dir, "keys"), Version: "0.2", Counter: 3, Created: time.Unix(1e9, 0),
		UKIs: map[string]string{"virtual": file("v", "virtual image")}, SBOM: file("s", "{}"),
	}
	if _, err := Bundle(o); err != nil {
		t.Fatal(err)
	}
	list, err := UpdateKeys(o.Keys)
	if err != nil {
		t.Fatal(err)
	}
	trusted := make(bundle.Keys)
	if err := trusted.Add(list[0].Public); err != nil {
		t.Fatal(err)
	}
	f, err := os.Open(o.Out)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	r, err := bundle.NewReader(f, trusted)
	if err != nil {
		t.Fatal(err)
	}
	var got []string
	for {
		f, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		var b bytes.Buffer
		if err == nil {
			err = r.Copy(&b)
		}
		if err != nil {
			t.Fatal(err)
		}
		got = append(got, f.Role+" "+f.Build+" "+b.String())
	}
	if len(got) != 2 || got[0] != "uki virtual virtual image" || got[1] != "sbom  {}" {
		t.Errorf("files: %q", got)
	}
	o.UKIs, o.SBOM = nil, ""
	if _, err := Bundle(o); err == nil {
		t.Error("a bundle of nothing")
	}
}
