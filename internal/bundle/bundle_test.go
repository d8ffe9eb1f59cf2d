package bundle

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"io"
	"strings"
	"testing"
	"testing/iotest"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// key makes the same key for the same number.
func key(n byte) *mldsa87.PrivateKey {
	_, k := mldsa87.NewKeyFromSeed(&[mldsa87.SeedSize]byte{n})
	return k
}

func public(k *mldsa87.PrivateKey) []byte { return k.Public().(*mldsa87.PublicKey).Bytes() }

func trust(t testing.TB, keys ...*mldsa87.PrivateKey) Keys {
	t.Helper()
	out := make(Keys)
	for _, k := range keys {
		if err := out.Add(public(k)); err != nil {
			t.Fatal(err)
		}
	}
	return out
}

var content = map[string][]byte{
	"virtual.efi":   bytes.Repeat([]byte("virtual "), 3000),
	"hardware.efi":  bytes.Repeat([]byte("hardware"), 4000),
	"sbom.cdx.json": []byte(`{"bomFormat":"CycloneDX"}`),
}

func file(name, role, build string) File {
	sum := sha256.Sum256(content[name])
	return File{Name: name, Role: role, Build: build, Size: int64(len(content[name])), SHA256: hex.EncodeToString(sum[:])}
}

func manifest() Manifest {
	return Manifest{
		Format: Format, Version: "0.2", Counter: 7, MinimumVersion: "0.1", Notes: "better",
		CreatedAt: time.Date(2026, 11, 27, 0, 0, 0, 0, time.UTC),
		Files:     []File{file("virtual.efi", RoleUKI, "virtual"), file("hardware.efi", RoleUKI, "hardware"), file("sbom.cdx.json", RoleSBOM, "")},
	}
}

func open(f File) (io.ReadCloser, error) { return io.NopCloser(bytes.NewReader(content[f.Name])), nil }

func write(t testing.TB, m Manifest, keys ...*mldsa87.PrivateKey) []byte {
	t.Helper()
	var out bytes.Buffer
	if err := Write(&out, m, keys, open); err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// read takes a whole bundle and returns its files.
func read(r io.Reader, keys Keys) (Manifest, map[string][]byte, error) {
	in, err := NewReader(r, keys)
	if err != nil {
		return Manifest{}, nil, err
	}
	files := make(map[string][]byte)
	for {
		f, err := in.Next()
		if errors.Is(err, io.EOF) {
			return in.Manifest(), files, nil
		}
		if err != nil {
			return in.Manifest(), nil, err
		}
		var b bytes.Buffer
		if err := in.Copy(&b); err != nil {
			return in.Manifest(), nil, err
		}
		files[f.Name] = b.Bytes()
	}
}

func TestRoundTrip(t *testing.T) {
	data := write(t, manifest(), key(1))
	if again := write(t, manifest(), key(1)); !bytes.Equal(again, data) {
		t.Error("the same inputs made other bytes")
	}
	for name, r := range map[string]io.Reader{"at once": bytes.NewReader(data), "byte by byte": iotest.OneByteReader(bytes.NewReader(data))} {
		m, files, err := read(r, trust(t, key(1), key(2)))
		if err != nil {
			t.Fatalf("%s: %v", name, err)
		}
		if m.Version != "0.2" || m.Counter != 7 || m.Notes != "better" || !m.CreatedAt.Equal(manifest().CreatedAt) {
			t.Errorf("%s: manifest %+v", name, m)
		}
		for name, want := range content {
			if !bytes.Equal(files[name], want) {
				t.Errorf("%s came back as %d bytes", name, len(files[name]))
			}
		}
	}
}

// A bit that flips anywhere refuses the bundle, and one before the payload does
// so before any payload is read.
func TestFlippedBits(t *testing.T) {
	data := write(t, manifest(), key(1))
	head := len(data)
	for _, c := range content {
		head -= len(c)
	}
	size := int(binary.LittleEndian.Uint32(data[4:]))
	regions := map[string][2]int{
		"magic": {0, 4}, "length": {4, 8}, "manifest": {8, 8 + size}, "count": {8 + size, 10 + size}, "key id": {10 + size, 42 + size},
		"signature": {42 + size, head}, "payload": {head, len(data)},
	}
	for name, at := range regions {
		step := max((at[1]-at[0])/40, 1)
		for i := at[0]; i < at[1]; i += step {
			bad := bytes.Clone(data)
			bad[i] ^= 1 << (i % 8)
			in := &counter{r: bytes.NewReader(bad)}
			_, _, err := read(in, trust(t, key(1)))
			if err == nil {
				t.Fatalf("%s: bit flip at %d was taken", name, i)
			}
			switch code := qverr.CodeOf(err); name {
			case "magic":
				if code != qverr.Inval {
					t.Errorf("%s: %v", name, err)
				}
			case "manifest", "signature", "key id", "payload":
				if code != qverr.PQCVerify {
					t.Errorf("%s at %d: code %d: %v", name, i, code, err)
				}
			}
			if name != "payload" && name != "length" && name != "count" && in.n > head {
				t.Errorf("%s: %d bytes were read, the head has %d", name, in.n, head)
			}
		}
	}
}

type counter struct {
	r io.Reader
	n int
}

func (c *counter) Read(p []byte) (int, error) {
	n, err := c.r.Read(p)
	c.n += n
	return n, err
}

func TestWhoSigned(t *testing.T) {
	for name, c := range map[string]struct {
		signed  []*mldsa87.PrivateKey
		trusted Keys
		want    qverr.Code
	}{
		"the key":                  {[]*mldsa87.PrivateKey{key(1)}, trust(t, key(1)), 0},
		"one of several trusted":   {[]*mldsa87.PrivateKey{key(2)}, trust(t, key(1), key(2), key(3)), 0},
		"a stranger too":           {[]*mldsa87.PrivateKey{key(9), key(1)}, trust(t, key(1)), 0},
		"a stranger alone":         {[]*mldsa87.PrivateKey{key(9)}, trust(t, key(1)), qverr.PQCVerify},
		"nobody that anyone knows": {[]*mldsa87.PrivateKey{key(1)}, Keys{}, qverr.PQCVerify},
	} {
		_, _, err := read(bytes.NewReader(write(t, manifest(), c.signed...)), c.trusted)
		if qverr.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

// A signature of a key that claims to be another's.
func TestBorrowedKeyID(t *testing.T) {
	data := write(t, manifest(), key(9))
	size := int(binary.LittleEndian.Uint32(data[4:]))
	id := sha256.Sum256(public(key(1)))
	copy(data[10+size:], id[:])
	if _, _, err := read(bytes.NewReader(data), trust(t, key(1))); qverr.CodeOf(err) != qverr.PQCVerify {
		t.Errorf("got %v", err)
	}
}

// The signature is bound to what it is for.
func TestContext(t *testing.T) {
	data := write(t, manifest(), key(1))
	size := int(binary.LittleEndian.Uint32(data[4:]))
	text, at := data[8:8+size], 42+size
	if err := mldsa87.SignTo(key(1), text, []byte("quantavirt-update-2"), false, data[at:at+mldsa87.SignatureSize]); err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(bytes.NewReader(data), trust(t, key(1))); qverr.CodeOf(err) != qverr.PQCVerify {
		t.Errorf("got %v", err)
	}
}

func TestCut(t *testing.T) {
	data := write(t, manifest(), key(1))
	for n := 0; n < len(data); n += 97 {
		_, _, err := read(bytes.NewReader(data[:n]), trust(t, key(1)))
		if qverr.CodeOf(err) != qverr.IO || !errors.Is(err, io.ErrUnexpectedEOF) {
			t.Fatalf("cut after %d bytes: %v", n, err)
		}
	}
	if _, _, err := read(io.MultiReader(bytes.NewReader(data), strings.NewReader("x")), trust(t, key(1))); qverr.CodeOf(err) != qverr.Inval {
		t.Errorf("a byte more: %v", err)
	}
	boom := errors.New("boom")
	if _, _, err := read(io.MultiReader(bytes.NewReader(data[:len(data)-5]), iotest.ErrReader(boom)), trust(t, key(1))); !errors.Is(err, boom) || qverr.CodeOf(err) != qverr.IO {
		t.Errorf("an error of the stream: %v", err)
	}
}

// zeroes is an endless reader that counts what was taken.
type zeroes struct{ n int64 }

func (z *zeroes) Read(p []byte) (int, error) {
	clear(p)
	z.n += int64(len(p))
	return len(p), nil
}

func TestTenGiBOfZeroes(t *testing.T) {
	z := &zeroes{}
	_, _, err := read(io.LimitReader(z, 10<<30), trust(t, key(1)))
	if qverr.CodeOf(err) != qverr.Inval {
		t.Errorf("got %v", err)
	}
	if z.n > 64 {
		t.Errorf("%d bytes were read", z.n)
	}
	// Behind a good head, too, no more is taken than the manifest says.
	data := write(t, manifest(), key(1))
	z = &zeroes{}
	_, _, err = read(io.MultiReader(bytes.NewReader(data[:len(data)-int(manifest().Size())]), io.LimitReader(z, 10<<30)), trust(t, key(1)))
	if qverr.CodeOf(err) != qverr.PQCVerify || z.n > manifest().Size() {
		t.Errorf("zeroes as payload: %v after %d bytes", err, z.n)
	}
}

func TestWriterErrorIsKept(t *testing.T) {
	in, err := NewReader(bytes.NewReader(write(t, manifest(), key(1))), trust(t, key(1)))
	if err != nil {
		t.Fatal(err)
	}
	if _, err := in.Next(); err != nil {
		t.Fatal(err)
	}
	if _, err := in.Next(); err == nil {
		t.Error("a file was passed over unread")
	}
	full := qverr.New(qverr.NoSpc, "full")
	if err := in.Copy(writer{full}); !errors.Is(err, qverr.NoSpc) {
		t.Errorf("got %v", err)
	}
}

type writer struct{ err error }

func (w writer) Write([]byte) (int, error) { return 0, w.err }

func TestAdmit(t *testing.T) {
	good := System{Version: "0.1-g0a1b2c3", Build: "virtual", Counter: 7}
	for name, c := range map[string]struct {
		system func(*System)
		m      func(*Manifest)
		want   qverr.Code
	}{
		"fits":             {want: 0},
		"the same counter": {system: func(s *System) { s.Counter = 7 }},
		"older counter":    {system: func(s *System) { s.Counter = 8 }, want: qverr.Version},
		"another build":    {system: func(s *System) { s.Build = "arm" }, want: qverr.Unsupported},
		"no build":         {system: func(s *System) { s.Build = "" }, want: qverr.Unsupported},
		"too old":          {m: func(m *Manifest) { m.MinimumVersion = "0.1.1" }, want: qverr.Version},
		"any version":      {m: func(m *Manifest) { m.MinimumVersion = "" }},
	} {
		s, m := good, manifest()
		if c.system != nil {
			c.system(&s)
		}
		if c.m != nil {
			c.m(&m)
		}
		if err := m.Admit(s); qverr.CodeOf(err) != c.want {
			t.Errorf("%s: %v", name, err)
		}
	}
}

func TestCompareVersions(t *testing.T) {
	for _, c := range []struct {
		a, b string
		want int
	}{
		{"0.1", "0.1", 0}, {"0.1-gabcdef0-dirty", "0.1", 0}, {"0.2", "0.10", -1}, {"1", "0.9.9", 1}, {"1.0.0", "1", 0},
		{"0.1.1", "0.1", 1}, {"", "0.1", -1}, {"99999999999999999999999", "99999999999999999999998", 1},
	} {
		if got := compareVersions(c.a, c.b); got != c.want {
			t.Errorf("compare %q with %q: %d", c.a, c.b, got)
		}
		if got := compareVersions(c.b, c.a); got != -c.want {
			t.Errorf("compare %q with %q: %d", c.b, c.a, got)
		}
	}
}

func TestKeyRotation(t *testing.T) {
	oldID := KeyID(sha256.Sum256(public(key(1))))
	m := manifest()
	m.Keys = KeyChange{Add: [][]byte{public(key(2))}, Remove: []string{oldID.String()}}
	got, _, err := read(bytes.NewReader(write(t, m, key(1))), trust(t, key(1)))
	if err != nil {
		t.Fatal(err)
	}
	after, err := trust(t, key(1)).Apply(got.Keys)
	if err != nil {
		t.Fatal(err)
	}
	if _, _, err := read(bytes.NewReader(write(t, manifest(), key(2))), after); err != nil {
		t.Errorf("the new key: %v", err)
	}
	if _, _, err := read(bytes.NewReader(write(t, manifest(), key(1))), after); qverr.CodeOf(err) != qverr.PQCVerify {
		t.Errorf("the old key: %v", err)
	}
	if _, err := trust(t, key(1)).Apply(KeyChange{Remove: []string{oldID.String()}}); qverr.CodeOf(err) != qverr.Inval {
		t.Errorf("no key left: %v", err)
	}
}

func TestUnknownPartsOfAManifest(t *testing.T) {
	sign := func(text string, payload string) []byte {
		data := []byte(Magic)
		data = binary.LittleEndian.AppendUint32(data, uint32(len(text)))
		data = append(data, text...)
		data = binary.LittleEndian.AppendUint16(data, 1)
		id := sha256.Sum256(public(key(1)))
		sig := make([]byte, mldsa87.SignatureSize)
		if err := mldsa87.SignTo(key(1), []byte(text), []byte(context), false, sig); err != nil {
			t.Fatal(err)
		}
		return append(append(append(data, id[:]...), sig...), payload...)
	}
	sum := sha256.Sum256([]byte("abc"))
	hash := hex.EncodeToString(sum[:])
	known := `{"format":1,"version":"0.3","later":{"x":[1]},"files":[{"name":"a","role":"firmware","size":3,"sha256":"` + hash + `","y":2}]}`
	_, files, err := read(bytes.NewReader(sign(known, "abc")), trust(t, key(1)))
	if err != nil || string(files["a"]) != "abc" {
		t.Errorf("unknown members and roles: %v", err)
	}
	for text, want := range map[string]qverr.Code{
		`{"format":2,"files":"another form"}`: qverr.Version,
		`{"version":"0.3"}`:                   qverr.Version,
		`{"format":1,"format":1}`:             qverr.Inval,
		`[]`:                                  qverr.Inval,
		strings.Replace(known, `"size":3`, `"size":-3`, 1):                       qverr.Inval,
		strings.Replace(known, `"size":3`, `"size":99999999999`, 1):              qverr.Inval,
		strings.Replace(known, `"name":"a"`, `"name":"../a"`, 1):                 qverr.Inval,
		strings.Replace(known, `"version":"0.3"`, `"version":"x"`, 1):            qverr.Inval,
		strings.Replace(known, hash, strings.ToUpper(hash), 1):                   qverr.Inval,
		strings.Replace(known, `"role":"firmware"`, `"role":"uki"`, 1):           qverr.Inval,
		`{"format":1,"version":"0.3","files":[]}`:                                qverr.Inval,
		strings.Replace(known, `"later"`, `"keys":{"add":["AAAA"]},"later"`, 1):  qverr.Inval,
		strings.Replace(known, `"later"`, `"keys":{"remove":["00"]},"later"`, 1): qverr.Inval,
	} {
		if _, _, err := read(bytes.NewReader(sign(text, "abc")), trust(t, key(1))); qverr.CodeOf(err) != want {
			t.Errorf("%s: %v", text, err)
		}
	}
}

func TestWriteRefuses(t *testing.T) {
	short := manifest()
	short.Files[0].Size--
	if err := Write(io.Discard, short, []*mldsa87.PrivateKey{key(1)}, open); err == nil {
		t.Error("a file that is longer than said")
	}
	if err := Write(io.Discard, manifest(), nil, open); qverr.CodeOf(err) != qverr.Inval {
		t.Error("no key")
	}
	twice := manifest()
	twice.Files[1].Build = "virtual"
	if err := Write(io.Discard, twice, []*mldsa87.PrivateKey{key(1)}, open); qverr.CodeOf(err) != qverr.Inval {
		t.Error("two UKIs for a build")
	}
}

func FuzzReader(f *testing.F) {
	keys := trust(f, key(1))
	good := write(f, manifest(), key(1))
	f.Add(good)
	f.Add(good[:5000])
	f.Add([]byte(Magic + "\x01\x00\x00\x00{"))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, files, err := read(bytes.NewReader(data), keys)
		if err != nil {
			if qverr.CodeOf(err) == qverr.Generic {
				t.Errorf("no code: %v", err)
			}
			return
		}
		// Only the holder of the key makes a bundle that is taken.
		if m.Version != manifest().Version || len(files) != len(content) {
			t.Errorf("a bundle that nobody signed: %+v", m)
		}
	})
}

// The manifest's own parser, behind the signature.
func FuzzManifest(f *testing.F) {
	f.Add([]byte(`{"format":1,"version":"0.2","counter":1,"files":[{"name":"a","role":"uki","build":"virtual","size":1,"sha256":"00"}]}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		m, err := parseManifest(data)
		if err != nil && qverr.CodeOf(err) == qverr.Generic {
			t.Errorf("no code: %v", err)
		}
		if err == nil && (m.Size() < 1 || len(m.Files) > maxFiles) {
			t.Errorf("taken: %+v", m)
		}
	})
}
