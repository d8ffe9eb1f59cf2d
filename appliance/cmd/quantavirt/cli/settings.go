package cli

import (
	"encoding/json"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"

	"quantavirt/internal/qverr"
)

// settings is the user's file.
type settings struct {
	// Host is the node that commands go to without --host.
	Host string `json:"host"`
	// Hosts holds what is known of each node, by the text that names it.
	Hosts map[string]hostSettings `json:"hosts"`
}

type hostSettings struct {
	CA    string `json:"ca"` // sha256:HEX or a PEM file
	Token string `json:"token"`
}

func (a *app) settingsPath() string {
	if p := a.Getenv("QUANTAVIRT_CONFIG"); p != "" {
		return p
	}
	dir := a.Getenv("XDG_CONFIG_HOME")
	if dir == "" {
		home := a.Getenv("HOME")
		if home == "" {
			return ""
		}
		dir = filepath.Join(home, ".config")
	}
	return filepath.Join(dir, "quantavirt", "config.json")
}

// loadSettings reads the file; none is an empty one unless it was named.
func (a *app) loadSettings() (settings, error) {
	var s settings
	path := a.settingsPath()
	if path == "" {
		return s, nil
	}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) && a.Getenv("QUANTAVIRT_CONFIG") == "" {
		return s, nil
	}
	if err != nil {
		return s, qverr.New(qverr.CodeOf(err), "settings: %w", err)
	}
	defer f.Close()
	dec := json.NewDecoder(f)
	dec.DisallowUnknownFields()
	if err := dec.Decode(&s); err != nil {
		return s, qverr.New(qverr.Config, "settings %s: %w", path, err).WithHint("see quantavirt --help for the form of the file")
	}
	if st, err := f.Stat(); err == nil && st.Mode().Perm()&0o077 != 0 && s.hasToken() {
		fmt.Fprintf(a.Err, "Warning: %s holds a token and others can read it: chmod 600 it\n", path)
	}
	return s, nil
}

func (s settings) hasToken() bool {
	for _, h := range s.Hosts {
		if h.Token != "" {
			return true
		}
	}
	return false
}

// target finds out which node the command is for and how to trust it: flags
// first, then the environment, then the file.
func (a *app) target() (target, error) {
	s, err := a.loadSettings()
	if err != nil {
		return target{}, err
	}
	host := first(a.host, a.Getenv("QUANTAVIRT_HOST"), s.Host)
	t, err := parseTarget(host)
	if err != nil {
		return t, err
	}
	known := s.Hosts[host]
	t.token = first(a.token, a.Getenv("QUANTAVIRT_TOKEN"), known.Token)
	t.trust, err = parseTrust(first(a.pin, a.Getenv("QUANTAVIRT_CA"), known.CA))
	return t, err
}

func first(values ...string) string {
	for _, v := range values {
		if v != "" {
			return v
		}
	}
	return ""
}
