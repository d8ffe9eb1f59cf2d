package nodeconfig

import (
	"bytes"
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"quantavirt/internal/qverr"
)

// structure is one of SMBIOS: header, formatted area, strings.
func structure(kind byte, formatted string, texts ...string) []byte {
	b := append([]byte{kind, byte(4 + len(formatted)), 0, 1}, formatted...)
	for _, s := range texts {
		b = append(append(b, s...), 0)
	}
	if len(texts) == 0 {
		b = append(b, 0)
	}
	return append(b, 0)
}

func TestOEMStrings(t *testing.T) {
	table := slices.Concat(structure(1, "\x01\x02", "QEMU", "q35"), structure(32, "\x00\x00"), structure(11, "\x02", "other", "quantavirt:e30="),
		structure(11, "\x01", "more"), structure(127, ""), structure(11, "\x01", "behind the end"))
	if got, want := oemStrings(table), []string{"other", "quantavirt:e30=", "more"}; !slices.Equal(got, want) {
		t.Errorf("%q, want %q", got, want)
	}
	for cut := range table {
		if got := oemStrings(table[:cut]); len(got) > 3 {
			t.Errorf("cut at %d: %q", cut, got)
		}
	}
}

func machineWith(t *testing.T, files map[string][]byte) Machine {
	t.Helper()
	m := Machine{Sys: t.TempDir()}
	for name, data := range files {
		path := filepath.Join(m.Sys, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return m
}

func TestMachine(t *testing.T) {
	const dmi = "firmware/dmi/tables/DMI"
	doc := base64.StdEncoding.EncodeToString([]byte(`{"hostname":"a"}`))
	m := machineWith(t, map[string][]byte{
		dmi:                                 structure(11, "\x02", "quantavirt.config=http://a/b", oemDocument+doc),
		"firmware/qemu_fw_cfg/" + fwCfgItem: []byte("{}"),
	})
	found, url, err := m.OEM()
	if err != nil || url != "http://a/b" || found == nil || string(found.Data) != `{"hostname":"a"}` || found.Source != FromSMBIOS {
		t.Errorf("%+v %q %v", found, url, err)
	}
	if found, err := m.FWCfg(); err != nil || found == nil || string(found.Data) != "{}" || found.Source != FromFWCfg {
		t.Errorf("%+v %v", found, err)
	}
	bare := machineWith(t, nil)
	if found, url, err := bare.OEM(); found != nil || url != "" || err != nil {
		t.Errorf("%+v %q %v", found, url, err)
	}
	if found, err := bare.FWCfg(); found != nil || err != nil {
		t.Errorf("%+v %v", found, err)
	}
	bad := machineWith(t, map[string][]byte{dmi: structure(11, "\x01", oemDocument+"***")})
	if found, _, err := bad.OEM(); found != nil || !errors.Is(err, qverr.Config) {
		t.Errorf("%+v %v", found, err)
	}
}

func TestMedium(t *testing.T) {
	dir := t.TempDir()
	if found, err := Medium(dir); found != nil || err != nil {
		t.Errorf("%+v %v", found, err)
	}
	if err := os.WriteFile(filepath.Join(dir, FileName), bytes.Repeat([]byte(" "), 2*MaxSize), 0o600); err != nil {
		t.Fatal(err)
	}
	if found, err := Medium(dir); err != nil || len(found.Data) != MaxSize+1 {
		t.Errorf("%v", err)
	}
}

func TestFetch(t *testing.T) {
	log := slog.New(slog.DiscardHandler)
	var asked atomic.Int32
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/late":
			if asked.Add(1) < 2 {
				w.WriteHeader(http.StatusServiceUnavailable)
				return
			}
			_, _ = w.Write([]byte("{}"))
		case "/large":
			_, _ = w.Write(bytes.Repeat([]byte(" "), MaxSize+1))
		case "/secret":
			w.WriteHeader(http.StatusForbidden)
		default:
			http.NotFound(w, r)
		}
	}))
	defer srv.Close()
	found, err := Fetch(t.Context(), log, srv.URL+"/late")
	if err != nil || string(found.Data) != "{}" || found.Source != FromURL || found.Place != srv.URL+"/late" || asked.Load() != 2 {
		t.Errorf("%+v %v, asked %d times", found, err, asked.Load())
	}
	for path, code := range map[string]qverr.Code{"/none": qverr.NoEnt, "/large": qverr.Config, "/secret": qverr.Config} {
		if _, err := Fetch(t.Context(), log, srv.URL+path); !errors.Is(err, code) {
			t.Errorf("%s: %v", path, err)
		}
	}
	if _, err := Fetch(t.Context(), log, "file:///etc/passwd"); !errors.Is(err, qverr.Config) {
		t.Error(err)
	}
	srv.Close()
	ctx, cancel := context.WithTimeout(t.Context(), 50*time.Millisecond)
	defer cancel()
	if _, err := Fetch(ctx, log, srv.URL+"/late"); !errors.Is(err, qverr.Timeout) || !strings.Contains(qverr.HintOf(err), "goes on") {
		t.Error(err)
	}
}

func FuzzOEMStrings(f *testing.F) {
	f.Add(structure(11, "\x01", "quantavirt:e30="))
	f.Fuzz(func(t *testing.T, table []byte) {
		total := 0
		for _, s := range oemStrings(table) {
			total += len(s)
		}
		if total > len(table) {
			t.Errorf("%d bytes of strings out of %d", total, len(table))
		}
	})
}
