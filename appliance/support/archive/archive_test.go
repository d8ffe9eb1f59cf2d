package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"errors"
	"fmt"
	"io"
	"reflect"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/support/archive/archivetest"
	"quantavirt/internal/qverr"
)

var node = Manifest{Version: "1", NodeID: "n1", Hostname: "node/7", CreatedAt: time.Date(2026, 1, 15, 14, 32, 1, 0, time.UTC)}

// flushed counts how often it is.
type flushed struct {
	bytes.Buffer
	times int
}

func (f *flushed) Flush() error { f.times++; return nil }

func write(t testing.TB, out io.Writer) {
	t.Helper()
	w := NewWriter(out, node)
	step := func(err error) {
		if err != nil {
			t.Fatal(err)
		}
	}
	step(w.Begin("system"))
	step(w.JSON("info.json", map[string]string{"passphrase": "correct horse"}))
	step(w.JSON("bad.json", func() {}))
	step(w.Begin("logs"))
	step(w.Text("node.log", []byte("a password=horse\n"), 0))
	step(w.Text("long.log", []byte(strings.Repeat("0123456789 secret=\n", MaxText/19+10)), 5))
	w.Fail(qverr.New(qverr.Timeout, "boot.log: token=horse"))
	step(w.Begin("vms"))
	step(w.Close())
}

func TestBundle(t *testing.T) {
	var out flushed
	write(t, &out)
	if out.times != 3 {
		t.Errorf("flushed %d times", out.times)
	}
	folder, files := archivetest.Files(t, bytes.NewReader(out.Bytes()))
	if folder != "quantavirt-support-node-7-20260115T143201Z" {
		t.Errorf("its folder is %s", folder)
	}
	var seen []string
	m, err := Read(bytes.NewReader(out.Bytes()), func(e Entry) { seen = append(seen, e.Part+":"+e.Name) })
	if err != nil {
		t.Fatal(err)
	}
	if want := []string{"system:", "system:info.json", "system:errors.txt", "logs:", "logs:node.log", "logs:long.log", "logs:errors.txt",
		"vms:", ":manifest.json"}; !reflect.DeepEqual(seen, want) {
		t.Errorf("seen %v", seen)
	}
	for name, want := range map[string]string{
		"system/info.json": "{\n  \"passphrase\": \"[redacted]\"\n}\n",
		"logs/node.log":    "a password=[redacted]\n",
		"logs/errors.txt":  "QV_ERR_TIMEOUT (-12): boot.log: token=[redacted]\n",
	} {
		if got := files[name]; got != want {
			t.Errorf("%s: %q", name, got)
		}
	}
	if m.NodeID != "n1" || m.Redacted != 3 || len(m.Parts) != 3 || len(m.Parts[0].Errors) != 1 || len(m.Parts[2].Errors) != 0 {
		t.Errorf("%+v", m)
	}
	long := m.Parts[1].Files[1]
	text := files["logs/long.log"]
	first := fmt.Sprintf("[%d bytes before this are left out]\n0123456789 secret=\n", long.CutBytes)
	if long.CutBytes < 190 || long.Bytes > MaxText+100 || int64(len(text)) != long.Bytes || !strings.HasPrefix(text, first) {
		t.Errorf("%+v: %.80q", long, text)
	}
}

// A bundle has an end to what it holds.
func TestFull(t *testing.T) {
	w := NewWriter(io.Discard, node)
	if err := w.Begin("logs"); err != nil {
		t.Fatal(err)
	}
	w.total = MaxTotal - 10
	for _, text := range []string{"0123456789\n", "012345678\n"} {
		if err := w.Text("a.log", []byte(text), 0); err != nil {
			t.Fatal(err)
		}
	}
	p := w.part()
	if len(p.Files) != 1 || p.Bytes != 10 || len(p.Errors) != 1 || p.Errors[0].Name != "QV_ERR_NOSPC" {
		t.Errorf("%+v", p)
	}
}

func TestNotWhole(t *testing.T) {
	var out bytes.Buffer
	write(t, &out)
	whole := out.Bytes()
	flipped := bytes.Clone(whole)
	flipped[len(flipped)-6] ^= 1 // the check sum
	packed := func(names ...string) []byte {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		w := tar.NewWriter(zip)
		for _, name := range names {
			body := "{}"
			if name == "f/manifest.json" {
				body = `{"format":1}`
			}
			_ = w.WriteHeader(&tar.Header{Name: name, Typeflag: tar.TypeReg, Size: int64(len(body))})
			_, _ = io.WriteString(w, body)
		}
		_ = errors.Join(w.Close(), zip.Close())
		return b.Bytes()
	}
	for name, data := range map[string][]byte{
		"nothing":             nil,
		"no gzip":             []byte("{}"),
		"cut":                 whole[:len(whole)/2],
		"cut at its end":      whole[:len(whole)-1],
		"check sum":           flipped,
		"no manifest":         packed("f/a/b"),
		"another file":        packed("f/a/b", "f/manifest.json"),
		"behind the manifest": packed("f/manifest.json", "f/a/b"),
	} {
		if _, err := Read(bytes.NewReader(data), func(Entry) {}); !errors.Is(err, qverr.IO) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := Read(bytes.NewReader(packed("f/manifest.json")), func(Entry) {}); err != nil {
		t.Error(err)
	}
}

func FuzzRead(f *testing.F) {
	var out bytes.Buffer
	w := NewWriter(&out, node)
	_ = errors.Join(w.Begin("system"), w.Text("a", []byte("b"), 0), w.Close())
	zip, err := gzip.NewReader(&out)
	if err != nil {
		f.Fatal(err)
	}
	plain, _ := io.ReadAll(zip)
	f.Add(plain)
	f.Fuzz(func(t *testing.T, plain []byte) {
		var b bytes.Buffer
		zip := gzip.NewWriter(&b)
		_, _ = zip.Write(plain)
		_ = zip.Close()
		m, err := Read(&b, func(Entry) {})
		if err == nil && m.Format != Format {
			t.Error("no bundle was taken for one")
		}
	})
}
