package update

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"maps"
	"reflect"
	"slices"
	"strings"
	"testing"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/bundle"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// Whatever is wrong with a bundle, nothing is written.
func TestRefusedBundles(t *testing.T) {
	n := newNode(t, UEFI, true)
	n.settle()
	if err := n.svc.change(func(r *record) { r.Counter = 1 }); err != nil {
		t.Fatal(err)
	}
	good := pack(t, "2.0", nil)
	flip := func(at int) []byte {
		bad := bytes.Clone(good)
		bad[at] ^= 4
		return bad
	}
	for name, c := range map[string]struct {
		data []byte
		code qverr.Code
	}{
		"not a bundle":     {[]byte(strings.Repeat("zip", 100)), qverr.Inval},
		"manifest changed": {flip(40), qverr.PQCVerify},
		"payload changed":  {flip(len(good) - 40), qverr.PQCVerify},
		"cut":              {good[:len(good)-40], qverr.IO},
		"longer":           {append(bytes.Clone(good), 0), qverr.Inval},
		"wrong key":        {pack(t, "2.0", nil, key(2)), qverr.PQCVerify},
		"older counter":    {pack(t, "2.0", func(m *bundle.Manifest) { m.Counter = 0 }), qverr.Version},
		"too old a node":   {pack(t, "2.0", func(m *bundle.Manifest) { m.MinimumVersion = "1.1" }), qverr.Version},
		"another build": {pack(t, "2.0", func(m *bundle.Manifest) {
			m.Files = slices.DeleteFunc(m.Files, func(f bundle.File) bool { return f.Build == "virtual" })
		}), qverr.Unsupported},
		"no system": {pack(t, "2.0", func(m *bundle.Manifest) {
			for i := range m.Files { // swap: what is signed for this build is no image
				m.Files[i].Build = map[string]string{"virtual": "hardware", "hardware": "virtual"}[m.Files[i].Build]
			}
		}), qverr.Unsupported},
		"no key left": {pack(t, "2.0", func(m *bundle.Manifest) { m.Keys.Remove = []string{keyID(key(1))} }), qverr.Inval},
	} {
		before, operations := maps.Clone(n.esp.files), len(n.esp.log)
		for _, o := range []Options{quick, {Check: true}} {
			if err := n.update(c.data, o); qverr.CodeOf(err) != c.code {
				t.Errorf("%s: %v", name, err)
			}
		}
		if !reflect.DeepEqual(n.esp.files, before) || len(n.esp.log) != operations {
			t.Errorf("%s: something was written: %v", name, n.esp.log[operations:])
		}
	}
	if err := n.update(good, Options{Check: true}); err != nil {
		t.Errorf("check of a good one: %v", err)
	}
	if l := n.slots(); l.LastBundle.Version != "2.0" || len(l.Items) != 1 {
		t.Errorf("after the check: %+v", l)
	}
	if n.did("reboot") {
		t.Error("a reboot for nothing")
	}
}

func keyID(k *mldsa87.PrivateKey) string {
	id := sha256.Sum256(public(k))
	return hex.EncodeToString(id[:])
}

func TestTenGiBOfZeroes(t *testing.T) {
	n := newNode(t, UEFI, false)
	n.settle()
	z := &zeroes{}
	if _, err := n.svc.Upload(n.t.Context(), "req", io.LimitReader(z, 10<<30), quick); qverr.CodeOf(err) != qverr.Inval {
		t.Errorf("got %v", err)
	}
	if z.n > 1<<20 {
		t.Errorf("%d bytes were taken in", z.n)
	}
}

type zeroes struct{ n int64 }

func (z *zeroes) Read(p []byte) (int, error) {
	clear(p)
	z.n += int64(len(p))
	return len(p), nil
}

func TestFullPartition(t *testing.T) {
	everywhere(t, func(t *testing.T, n *node) {
		n.settle()
		free, _ := n.esp.Free()
		n.esp.size -= free - 1000
		before := maps.Clone(n.esp.files)
		if err := n.update(pack(t, "2.0", nil), quick); qverr.CodeOf(err) != qverr.NoSpc {
			t.Errorf("got %v", err)
		}
		if !reflect.DeepEqual(n.esp.files, before) {
			t.Error("something changed")
		}
	})
}

// A medium that does not keep what it was given.
func TestReadBack(t *testing.T) {
	n := newNode(t, UEFI, true)
	n.settle()
	before := maps.Clone(n.esp.files)
	for _, name := range []string{waitingUKI(2), inFolder(2, slot.Initramfs)} {
		n.esp.spoil = name
		if err := n.update(pack(t, "2.0", nil), quick); qverr.CodeOf(err) != qverr.IO || !strings.Contains(err.Error(), "reads back") {
			t.Errorf("%s: %v", name, err)
		}
		if !reflect.DeepEqual(n.esp.files, before) {
			t.Errorf("%s: something is left", name)
		}
	}
}
