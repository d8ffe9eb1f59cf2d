package install

import (
	"bytes"
	"errors"
	"io"
	"net/http"
	"net/http/httptest"
	"os"
	"strconv"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/bundle"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
)

// bundled is a bundle of two builds, signed by a key.
func bundled(t *testing.T, key *mldsa87.PrivateKey, builds ...string) []byte {
	t.Helper()
	m := bundle.Manifest{Version: "3.1", Counter: 42}
	content := map[string][]byte{}
	for _, build := range builds {
		data := append(uki("quantavirt"), build...)
		content[build+".efi"] = data
		m.Files = append(m.Files, bundle.File{
			Name: build + ".efi", Role: bundle.RoleUKI, Build: build, Size: int64(len(data)), SHA256: nodeconfig.Sum(data),
		})
	}
	var out bytes.Buffer
	err := bundle.Write(&out, m, []*mldsa87.PrivateKey{key}, func(f bundle.File) (io.ReadCloser, error) {
		return io.NopCloser(bytes.NewReader(content[f.Name])), nil
	})
	if err != nil {
		t.Fatal(err)
	}
	return out.Bytes()
}

// A bundle is installed like the system in it, uploaded or fetched, and slot 1 has its
// version and counter.
func TestInstallBundle(t *testing.T) {
	m := newMachine(t)
	data := bundled(t, m.key, "hardware", "virtual")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Length", strconv.Itoa(len(data)))
		_, _ = w.Write(data)
	}))
	defer srv.Close()
	for i, source := range []Source{m.upload(data), {URL: srv.URL, SHA256: nodeconfig.Sum(data)}} {
		d := m.disk(4*gib, nil)
		if end := m.wait(m.Start(Request{Disk: "serial:SN" + strconv.Itoa(i)}, source, "")); end.State != spec.TaskStateSucceeded {
			t.Fatalf("%+v", end)
		}
		if i > 0 {
			continue
		}
		parts, err := disklayout.Disk{Size: d.SizeBytes, SectorSize: 512, ESP: disklayout.ESPInstalled, Data: true}.Partitions()
		if err != nil {
			t.Fatal(err)
		}
		esp := cut(t, d.Device, parts[1])
		if got := hosttool.Run(t, "mtype", "-i", esp, "::/EFI/Linux/qv-00000001.efi"); got != string(uki("quantavirt"))+"virtual" {
			t.Errorf("the system has %d bytes", len(got))
		}
		if got := hosttool.Run(t, "mtype", "-i", esp, "::/qv/00000001/slot.json"); !strings.Contains(got, `"version": "3.1"`) || !strings.Contains(got, `"counter": 42`) {
			t.Error(got)
		}
	}
	if left, _ := os.ReadDir(m.Spool); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}

// A bundle that is not as it was signed, or not for here, is refused before the disk
// is touched, and nothing is left of it.
func TestInstallRefusesBundles(t *testing.T) {
	m := newMachine(t)
	good := bundled(t, m.key, "virtual")
	flipped := bytes.Clone(good)
	flipped[len(flipped)-1] ^= 1
	_, foreign := mldsa87.NewKeyFromSeed(&[mldsa87.SeedSize]byte{2})
	for name, c := range map[string]struct {
		data []byte
		code qverr.Code
	}{
		"flipped bit": {flipped, qverr.PQCVerify}, "foreign key": {bundled(t, foreign, "virtual"), qverr.PQCVerify},
		"another build": {bundled(t, m.key, "hardware"), qverr.Unsupported}, "cut": {good[:len(good)-9], qverr.IO},
		"longer": {append(bytes.Clone(good), 0), qverr.Inval}, "the head alone": {good[:4], qverr.IO}, "less": {good[:3], qverr.Inval},
	} {
		src, err := m.Upload(bytes.NewReader(c.data), int64(len(c.data)))
		if name == "less" { // than the mark of a bundle: any file
			d := m.disk(4*gib, nil)
			if end := m.wait(m.Start(Request{Disk: "serial:SN0"}, src, "")); err != nil || end.State != spec.TaskStateFailed || end.Error.Code != c.code {
				t.Errorf("%s: %v %+v", name, err, end)
			}
			wantBlank(t, d)
			continue
		}
		if !errors.Is(err, c.code) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if left, _ := os.ReadDir(m.Spool); len(left) > 0 {
		t.Errorf("left behind: %v", left)
	}
}
