package luks2

import (
	"bytes"
	"encoding/binary"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/image/tools"
	"quantavirt/internal/qverr"
)

const testSize = MinSize + 4<<20

func device(t testing.TB) *os.File {
	t.Helper()
	f, err := os.Create(filepath.Join(t.TempDir(), "volume"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = f.Close() })
	if err := f.Truncate(testSize); err != nil {
		t.Fatal(err)
	}
	return f
}

func formatted(t testing.TB) (*os.File, *Volume, []byte) {
	t.Helper()
	f := device(t)
	v, key, err := Format(f, testSize, "QV-DATA", []byte("first"), []byte("second"))
	if err != nil {
		t.Fatal(err)
	}
	return f, v, key
}

func TestFormatAndOpen(t *testing.T) {
	f, made, key := formatted(t)
	v, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if v.Label != "QV-DATA" || v.UUID != made.UUID || v.Segment() != (Segment{16 << 20, 4096, "aes-xts-plain64"}) {
		t.Errorf("%+v", v)
	}
	for _, passphrase := range []string{"first", "second"} {
		if got, err := v.Open(f, []byte(passphrase)); err != nil || !bytes.Equal(got, key) {
			t.Errorf("%s: %v", passphrase, err)
		}
	}
	if _, err := v.Open(f, []byte("third")); !errors.Is(err, qverr.Perm) {
		t.Errorf("a wrong key: %v", err)
	}
	if _, _, err := Format(f, MinSize-1, "", []byte("x")); !errors.Is(err, qverr.Inval) {
		t.Errorf("too small: %v", err)
	}
}

func TestSetKey(t *testing.T) {
	f, v, key := formatted(t)
	if err := v.SetKey(f, 1, []byte("changed"), key); err != nil {
		t.Fatal(err)
	}
	if err := v.Write(f); err != nil {
		t.Fatal(err)
	}
	v, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	for passphrase, opens := range map[string]bool{"first": true, "second": false, "changed": true} {
		if _, err := v.Open(f, []byte(passphrase)); (err == nil) != opens {
			t.Errorf("%s: %v", passphrase, err)
		}
	}
	if err := v.SetKey(f, 1, []byte("x"), make([]byte, keySize)); !errors.Is(err, qverr.StrFormat) {
		t.Errorf("a key of another volume: %v", err)
	}
	if err := v.SetKey(f, 5, []byte("x"), key); !errors.Is(err, qverr.StrFormat) {
		t.Errorf("no slot: %v", err)
	}
}

type token struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	Value    int      `json:"value"`
}

// Whenever the power goes, one of the headers is whole.
func TestTornWrite(t *testing.T) {
	f, v, _ := formatted(t)
	if err := v.SetToken(token{"quantavirt-test", []string{"1"}, 1}); err != nil {
		t.Fatal(err)
	}
	if err := v.Write(f); err != nil {
		t.Fatal(err)
	}
	value := func() int {
		v, err := Read(f)
		if err != nil {
			t.Fatal(err)
		}
		raw, ok := v.Token("quantavirt-test")
		var got token
		if !ok || json.Unmarshal(raw, &got) != nil {
			t.Fatalf("%s", raw)
		}
		return got.Value
	}
	if err := v.SetToken(token{"quantavirt-test", []string{"1"}, 2}); err != nil {
		t.Fatal(err)
	}
	torn := &cut{f: f}
	for torn.left = 0; ; torn.left += 1024 {
		torn.now = torn.left
		sequence := v.sequence
		if v.Write(torn) == nil {
			break
		}
		if got := value(); got != 1 && got != 2 {
			t.Fatalf("after %d bytes: %d", torn.left, got)
		}
		v.sequence = sequence
	}
	if value() != 2 {
		t.Error("the new token is not there")
	}
}

// cut writes up to a number of bytes.
type cut struct {
	f         *os.File
	left, now int
}

func (c *cut) ReadAt(p []byte, off int64) (int, error) { return c.f.ReadAt(p, off) }
func (c *cut) Sync() error                             { return nil }
func (c *cut) WriteAt(p []byte, off int64) (int, error) {
	n := min(len(p), c.now)
	c.now -= n
	if _, err := c.f.WriteAt(p[:n], off); err != nil {
		return 0, err
	}
	if n < len(p) {
		return n, io.ErrShortWrite
	}
	return n, nil
}

// cryptsetup of Debian reads what we made, and opens it.
func TestCryptsetupOpensOurs(t *testing.T) {
	f, v, key := formatted(t)
	if err := v.SetToken(token{"quantavirt-test", []string{"1"}, 7}); err != nil {
		t.Fatal(err)
	}
	if err := v.Write(f); err != nil {
		t.Fatal(err)
	}
	out := cryptsetup(t, nil, "luksDump", f.Name())
	for _, want := range []string{"Label:         \tQV-DATA", "UUID:          \t" + v.UUID, "cipher: aes-xts-plain64", "sector: 4096", "0: luks2", "1: luks2", "0: quantavirt-test"} {
		if !strings.Contains(out, want) {
			t.Errorf("%q is missing in\n%s", want, out)
		}
	}
	for _, passphrase := range []string{"first", "second"} {
		cryptsetup(t, strings.NewReader(passphrase), "open", "--test-passphrase", "--key-file", "-", f.Name())
	}
	out = cryptsetup(t, strings.NewReader("first"), "luksDump", "--batch-mode", "--dump-volume-key", "--key-file", "-", f.Name())
	if digits := strings.Join(strings.Fields(out[strings.Index(out, "MK dump:")+len("MK dump:"):]), ""); !strings.HasPrefix(digits, hex.EncodeToString(key)) {
		t.Errorf("another key:\n%s", out)
	}
}

// We open what cryptsetup made.
func TestOpensCryptsetups(t *testing.T) {
	f := device(t)
	cryptsetup(t, strings.NewReader("theirs"), "luksFormat", "--type", "luks2", "--batch-mode", "--key-file", "-", "--cipher", "aes-xts-plain64",
		"--key-size", "512", "--pbkdf", "pbkdf2", "--pbkdf-force-iterations", "1000", "--hash", "sha256", "--label", "x", f.Name())
	v, err := Read(f)
	if err != nil {
		t.Fatal(err)
	}
	if key, err := v.Open(f, []byte("theirs")); err != nil || len(key) != keySize {
		t.Error(err)
	}
	if err := v.SetToken(token{"quantavirt-test", []string{"0"}, 7}); err != nil {
		t.Fatal(err)
	}
	if err := v.Write(f); err != nil {
		t.Fatal(err)
	}
	cryptsetup(t, strings.NewReader("theirs"), "open", "--test-passphrase", "--key-file", "-", f.Name())
	cryptsetup(t, nil, "luksDump", f.Name())
	argon := device(t)
	cryptsetup(t, strings.NewReader("theirs"), "luksFormat", "--type", "luks2", "--batch-mode", "--key-file", "-", "--key-size", "512",
		"--pbkdf-memory", "32", "--pbkdf-force-iterations", "4", argon.Name())
	if v, err = Read(argon); err != nil {
		t.Fatal(err)
	}
	if _, err := v.Open(argon, []byte("theirs")); !errors.Is(err, qverr.Unsupported) || !strings.Contains(err.Error(), "argon2id") {
		t.Errorf("by argon2id: %v", err)
	}
}

func cryptsetup(t *testing.T, in io.Reader, args ...string) string {
	t.Helper()
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	cmd := root.Command("cryptsetup", args...)
	cmd.Stdin = in
	out, err := cmd.CombinedOutput()
	if err != nil {
		t.Fatalf("cryptsetup %v: %v\n%s", args, err, out)
	}
	return string(out)
}

func TestHostileHeaders(t *testing.T) {
	_, v, _ := formatted(t)
	change := func(fn func(m *metadata)) []byte {
		c := *v
		raw, err := json.Marshal(v.meta)
		if err != nil {
			t.Fatal(err)
		}
		c.meta = metadata{}
		if err := json.Unmarshal(raw, &c.meta); err != nil {
			t.Fatal(err)
		}
		fn(&c.meta)
		text, err := json.Marshal(c.meta)
		if err != nil {
			t.Fatal(err)
		}
		return append(c.encode(magic, 0, text), make([]byte, 1<<20)...)
	}
	inSegment := func(fn func(s *segment)) []byte {
		return change(func(m *metadata) {
			s := m.Segments["0"]
			fn(&s)
			m.Segments["0"] = s
		})
	}
	inSlot := func(fn func(s *keyslot)) []byte {
		return change(func(m *metadata) {
			s := m.Keyslots["0"]
			fn(&s)
			m.Keyslots = map[string]keyslot{"0": s}
		})
	}
	raw := func(fn func(b []byte)) []byte {
		b := change(func(*metadata) {})
		fn(b)
		return b
	}
	for name, b := range map[string][]byte{
		"nothing":               nil,
		"another version":       raw(func(b []byte) { b[atVersion+1] = 1 }),
		"huge":                  raw(func(b []byte) { binary.BigEndian.PutUint64(b[atSize:], 1<<60) }),
		"a flipped bit":         raw(func(b []byte) { b[5000] ^= 1 }),
		"no segment":            change(func(m *metadata) { m.Segments = nil }),
		"requirements":          change(func(m *metadata) { m.Config.Requirements = &require{[]string{"online-reencrypt"}} }),
		"no cipher":             inSegment(func(s *segment) { s.Encryption = "cipher_null-ecb" }),
		"data in the header":    inSegment(func(s *segment) { s.Offset = 4096 }),
		"sectors of one byte":   inSegment(func(s *segment) { s.SectorSize = 1 }),
		"slot outside":          inSlot(func(s *keyslot) { s.Area.Offset = 1 << 50 }),
		"slot before the area":  inSlot(func(s *keyslot) { s.Area.Offset = -4096 }),
		"slot with one stripe":  inSlot(func(s *keyslot) { s.AF.Stripes = 1 << 30 }),
		"slot that never opens": inSlot(func(s *keyslot) { s.KDF.Iterations = 1 << 40 }),
		"slot by nothing":       inSlot(func(s *keyslot) { s.KDF.Hash = "" }),
	} {
		d := memory{b}
		v, err := Read(d)
		if err == nil {
			_, err = v.Open(d, []byte("first"))
		}
		if !errors.Is(err, qverr.StrFormat) {
			t.Errorf("%s: %v", name, err)
		}
	}
}

type memory struct{ b []byte }

func (m memory) ReadAt(p []byte, off int64) (int, error)  { return bytes.NewReader(m.b).ReadAt(p, off) }
func (m memory) WriteAt(p []byte, off int64) (int, error) { return 0, errors.ErrUnsupported }
func (m memory) Sync() error                              { return nil }

func TestSplit(t *testing.T) {
	key := random(keySize)
	s := split(key, 50)
	if !bytes.Equal(merge(bytes.Clone(s), 50), key) {
		t.Error("the key is not what it was")
	}
	s[7] ^= 1
	if bytes.Equal(merge(s, 50), key) {
		t.Error("one bit less gives the key too")
	}
}

func FuzzRead(f *testing.F) {
	_, v, _ := formatted(f)
	text, err := json.Marshal(v.fields)
	if err != nil {
		f.Fatal(err)
	}
	f.Add(text)
	f.Add([]byte("{}"))
	f.Fuzz(func(t *testing.T, text []byte) {
		if len(text) > headerSize-binarySize {
			return
		}
		d := memory{append((&Volume{size: headerSize}).encode(magic, 0, text), make([]byte, headerSize)...)}
		v, err := Read(d)
		if err != nil {
			return
		}
		if _, err := v.Open(d, nil); err == nil {
			t.Error("opened")
		}
	})
}
