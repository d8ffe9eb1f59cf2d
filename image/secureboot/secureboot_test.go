package secureboot

import (
	"bytes"
	"crypto/x509"
	"encoding/binary"
	"encoding/pem"
	"errors"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/image/tools"
	"quantavirt/internal/authenticode"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/pefile"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/qverr"
)

func key(t *testing.T, name string) Key {
	t.Helper()
	k, err := Generate(name)
	if err != nil {
		t.Fatal(err)
	}
	return k
}

func image() []byte {
	return petest.Image(0x400, petest.Section{Name: ".text", Data: "code"}, petest.Section{Name: ".data", Data: strings.Repeat("data ", 300)})
}

func sign(t *testing.T, k Key, image []byte) []byte {
	t.Helper()
	signed, err := k.Sign(image)
	if err != nil {
		t.Fatal(err)
	}
	return signed
}

func TestSign(t *testing.T) {
	k, other := key(t, "ours"), key(t, "foreign")
	unsigned := image()
	signed := sign(t, k, unsigned)
	if again := sign(t, k, unsigned); !bytes.Equal(again, signed) {
		t.Error("the same image and key gave another signature")
	}
	if !bytes.Equal(unsigned, image()) {
		t.Error("signing changed its argument")
	}
	if err := Verify(signed, other.Certificate, k.Certificate); err != nil {
		t.Error(err)
	}
	for _, c := range []struct {
		name, says string
		image      []byte
		trusted    []*x509.Certificate
	}{
		{"unsigned", "not signed", unsigned, []*x509.Certificate{k.Certificate}},
		{"foreign", "not trusted", sign(t, other, unsigned), []*x509.Certificate{k.Certificate}},
		{"nobody trusted", "not trusted", signed, nil},
	} {
		if err := Verify(c.image, c.trusted...); err == nil || !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: got %v", c.name, err)
		}
	}
	if _, err := k.Sign(signed); err == nil {
		t.Error("signed an image twice")
	}
	before, err := Digest(unsigned)
	if err != nil {
		t.Fatal(err)
	}
	if after, err := Digest(signed); err != nil || after != before {
		t.Errorf("the signature changes the digest: %v", err)
	}
}

// Any change of the image but that of its checksum is found, and any of the
// signature proper, the last bytes of the entry.
func TestTampered(t *testing.T) {
	k := key(t, "ours")
	signed := sign(t, k, image())
	f, err := pefile.Open(bytes.NewReader(signed), int64(len(signed)))
	if err != nil {
		t.Fatal(err)
	}
	table := int(f.Certificates.Offset)
	end := table + int(binary.LittleEndian.Uint32(signed[table:]))
	for i := range end {
		checksum := i >= int(f.Checksum) && i < int(f.Checksum)+4
		if checksum || i >= table && i < end-Bits/8 {
			continue
		}
		signed[i] ^= 0x10
		if err := Verify(signed, k.Certificate); err == nil {
			t.Errorf("did not notice a change at %#x (certificates from %#x on)", i, table)
		}
		signed[i] ^= 0x10
	}
}

func TestGapRefused(t *testing.T) {
	b := image()
	const secondOffset = 0x44 + 20 + 240 + 40 + 20 // of the second section's data, in petest's layout
	b = append(b, make([]byte, petest.FileAlignment)...)
	binary.LittleEndian.PutUint32(b[secondOffset:], binary.LittleEndian.Uint32(b[secondOffset:])+petest.FileAlignment)
	if _, err := Digest(b); err == nil || !strings.Contains(err.Error(), "gap") {
		t.Errorf("got %v", err)
	}
}

// Tools that are not ours take the signature, and not that of another key.
func TestOtherVerifiers(t *testing.T) {
	root, ok := tools.Cached()
	if !ok {
		t.Skip("the root of Debian packages is not there: make setup makes it")
	}
	loader, err := os.ReadFile(root.Path("usr", "lib", "systemd", "boot", "efi", "systemd-bootx64.efi"))
	if err != nil {
		t.Fatal(err)
	}
	k, other := key(t, "ours"), key(t, "foreign")
	dir := t.TempDir()
	certificate := func(name string, k Key) string {
		path := filepath.Join(dir, name)
		text := pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate.Raw})
		if err := os.WriteFile(path, text, 0o644); err != nil {
			t.Fatal(err)
		}
		return path
	}
	program := filepath.Join(dir, "program.efi")
	if err := os.WriteFile(program, sign(t, k, loader), 0o644); err != nil {
		t.Fatal(err)
	}
	ours, foreign := certificate("ours.crt", k), certificate("foreign.crt", other)
	for _, tool := range []struct {
		name string
		args func(certificate string) []string
	}{
		{"sbverify", func(c string) []string { return []string{"--cert", c, program} }},
		{"osslsigncode", func(c string) []string { return []string{"verify", "-CAfile", c, program} }},
	} {
		t.Run(tool.name, func(t *testing.T) {
			hosttool.Path(t, tool.name)
			if out, err := exec.Command(tool.name, tool.args(ours)...).CombinedOutput(); err != nil {
				t.Errorf("%v: %s", err, out)
			}
			if out, err := exec.Command(tool.name, tool.args(foreign)...).CombinedOutput(); err == nil {
				t.Errorf("takes the certificate of a foreign key: %s", out)
			}
		})
	}
}

func TestEnsureKeys(t *testing.T) {
	dir := filepath.Join(t.TempDir(), "keys")
	first, err := EnsureKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	if strings.Join(first.Made, " ") != "PK KEK db" {
		t.Errorf("made %v", first.Made)
	}
	read := func() string {
		var all []byte
		for _, name := range []string{PK, KEK, DB} {
			for _, suffix := range []string{".key", ".crt", ".cer", ".esl", ".auth"} {
				data, err := os.ReadFile(filepath.Join(dir, name+suffix))
				if err != nil {
					t.Fatal(err)
				}
				all = append(all, data...)
			}
		}
		return string(all)
	}
	before := read()
	second, err := EnsureKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	if len(second.Made) != 0 || read() != before {
		t.Errorf("a second run made %v or changed a file", second.Made)
	}
	if info, err := os.Stat(filepath.Join(dir, "db.key")); err != nil || info.Mode().Perm() != 0o600 {
		t.Errorf("mode of the private key: %v, %v", info.Mode(), err)
	}
	// A certificate that is not the key's is noticed.
	if err := os.Rename(filepath.Join(dir, "KEK.crt"), filepath.Join(dir, "db.crt")); err != nil {
		t.Fatal(err)
	}
	if _, err := Load(dir, DB); err == nil {
		t.Error("took the certificate of another key")
	}
}

// The enrolment files have the layout of the UEFI specification; that firmware
// takes them is shown by TestSecureBoot under QEMU.
func TestEnrolmentFiles(t *testing.T) {
	dir := t.TempDir()
	keys, err := EnsureKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(dir, "db.esl"))
	if err != nil {
		t.Fatal(err)
	}
	certificate := keys.DB.Certificate.Raw
	// EFI_CERT_X509_GUID as it lies in memory.
	x509GUID := []byte{0xa1, 0x59, 0xc0, 0xa5, 0xe4, 0x94, 0xa7, 0x4a, 0x87, 0xb5, 0xab, 0x15, 0x5c, 0x2b, 0xf0, 0x72}
	if !bytes.Equal(list[:16], x509GUID) || int(binary.LittleEndian.Uint32(list[16:])) != len(list) ||
		int(binary.LittleEndian.Uint32(list[24:])) != 16+len(certificate) || !bytes.Equal(list[44:], certificate) {
		t.Errorf("signature list begins %x", list[:44])
	}
	update, err := os.ReadFile(filepath.Join(dir, "db.auth"))
	if err != nil {
		t.Fatal(err)
	}
	if !bytes.HasSuffix(update, list) {
		t.Error("the update does not end with the list")
	}
	if year := binary.LittleEndian.Uint16(update); int(year) != keys.DB.Certificate.NotBefore.Year() || !bytes.Equal(update[7:16], make([]byte, 9)) {
		t.Errorf("time %x", update[:16])
	}
	if n := int(binary.LittleEndian.Uint32(update[16:])); 16+n+len(list) != len(update) {
		t.Errorf("certificate of %d bytes in an update of %d", n, len(update))
	}
	// EDK2 looks for SHA-256's identifier at a fixed place of the SignedData.
	if signature := update[16+8+16:]; !bytes.HasPrefix(signature[13:], []byte{0x60, 0x86, 0x48, 0x01, 0x65, 0x03, 0x04, 0x02, 0x01}) {
		t.Errorf("the SignedData begins %x", signature[:24])
	}
}

// What firmware with our db would refuse is known before it is tried.
func TestDatabase(t *testing.T) {
	dir := t.TempDir()
	keys, err := EnsureKeys(dir)
	if err != nil {
		t.Fatal(err)
	}
	list, err := os.ReadFile(filepath.Join(dir, DB+".esl"))
	if err != nil {
		t.Fatal(err)
	}
	kek, err := os.ReadFile(filepath.Join(dir, KEK+".esl"))
	if err != nil {
		t.Fatal(err)
	}
	hashes := append(guid("c1c41626-504c-4092-aca9-41f936934328"), 0x4c, 0, 0, 0, 0, 0, 0, 0, 0x30, 0, 0, 0) // EFI_CERT_SHA256_GUID
	hashes = append(hashes, make([]byte, 48)...)
	ours, foreign := sign(t, keys.DB, image()), sign(t, key(t, "foreign"), image())
	for _, c := range []struct {
		name  string
		db    []byte
		image []byte
		says  string // "": it starts, or nobody knows
	}{
		{"ours", list, ours, ""},
		{"ours, among others", bytes.Join([][]byte{kek, list}, nil), ours, ""},
		{"unsigned", list, image(), "not signed"},
		{"foreign", list, foreign, `signed by "CN=foreign"`},
		{"foreign, or perhaps its hash", append(hashes, list...), foreign, ""},
		{"an empty db", nil, ours, `signed by "CN=QuantaVirt db"`},
		{"no program", list, []byte("MZ"), "cannot be read"},
	} {
		db, err := authenticode.ParseDB(c.db)
		if err != nil {
			t.Fatal(err)
		}
		err = db.Check(bytes.NewReader(c.image), int64(len(c.image)))
		if c.says == "" && err != nil || c.says != "" && (!errors.Is(err, qverr.Perm) || !strings.Contains(err.Error(), c.says)) {
			t.Errorf("%s: %v", c.name, err)
		}
	}
	for n := range len(list) {
		if _, err := authenticode.ParseDB(list[:n]); n > 0 && !errors.Is(err, qverr.Inval) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
}

func FuzzVerify(f *testing.F) {
	k, err := Generate("fuzz")
	if err != nil {
		f.Fatal(err)
	}
	signed, err := k.Sign(image())
	if err != nil {
		f.Fatal(err)
	}
	f.Add(signed)
	sum, err := Digest(signed)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if Verify(b, k.Certificate) != nil {
			return
		}
		if got, err := Digest(b); err != nil || got != sum {
			t.Errorf("verified an image of digest %x that nobody signed (%v)", got, err)
		}
	})
}
