package firstboot

import (
	"context"
	"encoding/base64"
	"errors"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
)

// oem is an SMBIOS table with one OEM string.
func oem(text string) []byte {
	return append(append([]byte{11, 5, 0, 1, 1}, text...), 0, 0)
}

func document(hostname string) []byte { return []byte(`{"hostname": "` + hostname + `"}`) }

// setup is where documents are.
type setup struct {
	medium, url, smbios, fwcfg bool
	urlGone                    bool
	told                       string // by the network: a path of the server, "none" or a URL; "": it is not asked
	mediumErr                  error
}

func (c setup) options(t *testing.T, server string) Options {
	t.Helper()
	o := Options{Log: slog.New(slog.DiscardHandler), Machine: nodeconfig.Machine{Sys: t.TempDir()}}
	o.Medium = func() (*nodeconfig.Found, error) {
		if !c.medium {
			return nil, c.mediumErr
		}
		return &nodeconfig.Found{Source: nodeconfig.FromMedium, Place: "esp", Data: document("medium")}, nil
	}
	put := func(name string, data []byte) {
		path := filepath.Join(o.Machine.Sys, "firmware", name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	if c.smbios {
		put("dmi/tables/DMI", oem("quantavirt:"+base64.StdEncoding.EncodeToString(document("smbios"))))
	}
	if c.fwcfg {
		put("qemu_fw_cfg/by_name/opt/org.quantavirt/config/raw", document("fwcfg"))
	}
	if c.url {
		o.URL = server + "/url"
	}
	if c.urlGone {
		o.URL = server + "/gone"
	}
	switch c.told {
	case "":
	case "none":
		o.Ask = func(context.Context) (string, error) { return "", nil }
	case "broken":
		o.Ask = func(context.Context) (string, error) { return "", qverr.New(qverr.NoDev, "the uplink is gone") }
	default:
		told := c.told
		if strings.HasPrefix(told, "/") {
			told = server + told
		}
		o.Ask = func(context.Context) (string, error) { return told, nil }
	}
	return o
}

func newDB(t *testing.T) *store.DB {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { _ = db.Close() })
	return db
}

func newServer(t *testing.T) string {
	t.Helper()
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		if r.URL.Path == "/url" {
			_, _ = w.Write(document("url"))
			return
		}
		http.NotFound(w, r)
	}))
	t.Cleanup(srv.Close)
	return srv.URL
}

func TestOrderOfSources(t *testing.T) {
	server := newServer(t)
	for name, c := range map[string]struct {
		setup
		pending  bool
		want     string
		problems int
	}{
		"nothing":                        {setup{}, false, "", 0},
		"all":                            {setup{medium: true, url: true, smbios: true, fwcfg: true}, false, "medium", 0},
		"URL before SMBIOS":              {setup{url: true, smbios: true, fwcfg: true}, true, "url", 0},
		"the server has none":            {setup{urlGone: true, smbios: true}, true, "smbios", 1},
		"the server has none, nor we":    {setup{urlGone: true}, true, "", 1},
		"SMBIOS before fw_cfg":           {setup{smbios: true, fwcfg: true}, false, "smbios", 0},
		"fw_cfg":                         {setup{fwcfg: true}, false, "fwcfg", 0},
		"a medium that cannot be read":   {setup{mediumErr: qverr.New(qverr.StrIO, "bad"), fwcfg: true}, false, "fwcfg", 1},
		"the network tells of one":       {setup{told: "/url", smbios: true}, true, "url", 0},
		"the network tells of none":      {setup{told: "none", smbios: true}, true, "smbios", 0},
		"nor do we have one":             {setup{told: "none"}, true, "", 0},
		"the network lies":               {setup{told: "/gone", fwcfg: true}, true, "fwcfg", 1},
		"the network tells nonsense":     {setup{told: "file:///etc/passwd", fwcfg: true}, true, "fwcfg", 1},
		"the network is broken":          {setup{told: "broken", fwcfg: true}, true, "fwcfg", 1},
		"command line, not the network":  {setup{url: true, told: "/gone"}, true, "url", 0},
		"medium, not the network":        {setup{medium: true, told: "/gone"}, false, "medium", 0},
		"medium, and a server that asks": {setup{medium: true, urlGone: true}, false, "medium", 0},
	} {
		t.Run(name, func(t *testing.T) {
			s, err := Open(newDB(t), c.options(t, server))
			if err != nil {
				t.Fatal(err)
			}
			if s.Pending() != c.pending {
				t.Errorf("pending: %v", s.Pending())
			}
			changed, err := s.Fetch(t.Context())
			if err != nil || changed != (c.pending && c.want != "") {
				t.Errorf("fetch: %v %v", changed, err)
			}
			if got := s.Document().Hostname; got != c.want || len(s.Info().Problems) != c.problems || (s.Info().Source == "") != (c.want == "") {
				t.Errorf("%q, want %q; %+v", got, c.want, s.Info())
			}
		})
	}
}

func TestURLOfSMBIOS(t *testing.T) {
	server := newServer(t)
	o := setup{fwcfg: true}.options(t, server)
	path := filepath.Join(o.Machine.Sys, "firmware/dmi/tables/DMI")
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, oem("quantavirt.config="+server+"/url"), 0o600); err != nil {
		t.Fatal(err)
	}
	s, err := Open(newDB(t), o)
	if err != nil || !s.Pending() {
		t.Fatal(err)
	}
	if _, err := s.Fetch(t.Context()); err != nil || s.Document().Hostname != "url" {
		t.Errorf("%+v %v", s.Document(), err)
	}
}

// The first configuration holds when its source is gone or says something else.
func TestTakenOnce(t *testing.T) {
	db, server := newDB(t), newServer(t)
	for i, c := range []setup{{fwcfg: true}, {}, {told: "/url"}, {medium: true}, {url: true}} {
		s, err := Open(db, c.options(t, server))
		if err != nil || s.Pending() {
			t.Fatal(i, err)
		}
		if changed, err := s.Fetch(t.Context()); changed || err != nil {
			t.Errorf("%d: %v %v", i, changed, err)
		}
		if got := s.Info(); s.Document().Hostname != "fwcfg" || got.Source != "fw_cfg" || (got.Message != "") != (i >= 3) {
			t.Errorf("%d: %+v", i, got)
		}
	}
	o := setup{}.options(t, server)
	o.Medium = func() (*nodeconfig.Found, error) {
		return &nodeconfig.Found{Source: nodeconfig.FromMedium, Data: []byte(`{"hostname": "again", "apply": "always"}`)}, nil
	}
	s, err := Open(db, o)
	if err != nil || s.Document().Hostname != "again" || !s.unmade() {
		t.Errorf("%+v %v", s.Document(), err)
	}
}

type tokens struct{ got []string }

func (k *tokens) TrustHash(hash, _ string, role spec.TokenRole) error {
	if strings.HasSuffix(hash, "1") {
		return errors.New("no")
	}
	k.got = append(k.got, hash+" "+string(role))
	return nil
}

func TestTokens(t *testing.T) {
	zeroes := "sha256:" + strings.Repeat("0", 63)
	o := setup{}.options(t, "")
	o.Medium = func() (*nodeconfig.Found, error) {
		return &nodeconfig.Found{Data: []byte(`{"tokens": [{"hash": "` + zeroes + `1"}, {"hash": "` + zeroes + `2", "role": "viewer"}]}`)}, nil
	}
	s, err := Open(newDB(t), o)
	if err != nil {
		t.Fatal(err)
	}
	k := &tokens{}
	s.Tokens(k)
	if len(k.got) != 1 || k.got[0] != zeroes+"2 viewer" || !strings.HasPrefix(s.Info().Problems[0].Message, "tokens[0]: ") {
		t.Errorf("%v %+v", k.got, s.Info())
	}
	if err := s.Make(t.Context(), nil, nil, nil); err != nil {
		t.Fatal(err)
	}
	k.got = nil
	if s.Tokens(k); k.got != nil {
		t.Errorf("tokens are trusted again: %v", k.got)
	}
}
