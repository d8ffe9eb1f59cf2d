package netboot

import (
	"encoding/json"
	"errors"
	"io/fs"
	"maps"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/mac"
)

const (
	stateName    = "state.json"
	stateVersion = 1
	// maxFetched bounds the names of machines that have fetched: clients invent
	// them where there is a default configuration.
	maxFetched = 16384
)

// state survives a restart of the server: leases, so that an address is not
// given twice, and the machines that have fetched their configuration. It
// implements dhcp.Store.
type state struct {
	path string

	mu      sync.Mutex
	fetched map[string]time.Time // by name of the machine, see Identity.keys
	leases  map[mac.Addr]dhcp.Lease
}

type stateFile struct {
	Version int                  `json:"version"`
	Fetched map[string]time.Time `json:"fetched,omitempty"`
	Leases  []dhcp.Lease         `json:"leases,omitempty"`
}

// openState reads the state in a directory, which it makes.
func openState(dir string) (*state, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "directory of the state: %w", err)
	}
	s := &state{path: filepath.Join(dir, stateName), fetched: make(map[string]time.Time), leases: make(map[mac.Addr]dhcp.Lease)}
	data, err := os.ReadFile(s.path)
	if errors.Is(err, fs.ErrNotExist) {
		return s, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "read the state: %w", err)
	}
	var f stateFile
	if err := json.Unmarshal(data, &f); err != nil {
		return nil, qverr.New(qverr.Config, "state %s: %w", s.path, err).WithHint("move it away; who has which address is then forgotten")
	}
	if f.Version != stateVersion {
		return nil, qverr.New(qverr.Version, "state %s has version %d, want %d", s.path, f.Version, stateVersion)
	}
	maps.Copy(s.fetched, f.Fetched)
	for _, l := range f.Leases {
		s.leases[l.MAC] = l
	}
	return s, nil
}

// save writes the state under another name, flushes it and renames it. s.mu is
// held.
func (s *state) save() error {
	f := stateFile{Version: stateVersion, Fetched: s.fetched, Leases: slices.Collect(maps.Values(s.leases))}
	slices.SortFunc(f.Leases, func(a, b dhcp.Lease) int { return a.Address.Compare(b.Address) })
	data, err := json.MarshalIndent(f, "", "  ")
	if err != nil {
		return err
	}
	temp, err := os.CreateTemp(filepath.Dir(s.path), stateName+".")
	if err != nil {
		return err
	}
	_, err = temp.Write(append(data, '\n'))
	if err == nil {
		err = temp.Sync()
	}
	err = errors.Join(err, temp.Close())
	if err == nil {
		err = os.Rename(temp.Name(), s.path)
	}
	if err != nil {
		_ = os.Remove(temp.Name())
		return qverr.New(qverr.CodeOf(err), "keep the state: %w", err)
	}
	return nil
}

// has reports whether one of the names stands for a machine that has fetched.
func (s *state) has(keys []string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.ContainsFunc(keys, func(k string) bool { _, ok := s.fetched[k]; return ok })
}

// take marks a machine as one that has fetched. Errors carry QV_ERR_STATE if it
// is one already and QV_ERR_LIMIT if there are too many.
func (s *state) take(keys []string) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, k := range keys {
		if at, ok := s.fetched[k]; ok {
			return qverr.New(qverr.State, "%s has fetched its configuration at %s, and may do so once", k, at.UTC().Format(time.RFC3339))
		}
	}
	if len(s.fetched)+len(keys) > maxFetched {
		return qverr.New(qverr.Limit, "%d machines have fetched a configuration: no more are served", len(s.fetched))
	}
	now := time.Now().UTC().Truncate(time.Second)
	for _, k := range keys {
		s.fetched[k] = now
	}
	return s.save()
}

// forget lets a machine fetch again. It is false if it has not fetched.
func (s *state) forget(keys []string) (bool, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	before := len(s.fetched)
	for _, k := range keys {
		delete(s.fetched, k)
	}
	if len(s.fetched) == before {
		return false, nil
	}
	return true, s.save()
}

// Load implements dhcp.Store.
func (s *state) Load(string) ([]dhcp.Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return slices.Collect(maps.Values(s.leases)), nil
}

// Save implements dhcp.Store.
func (s *state) Save(_ string, l dhcp.Lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.leases[l.MAC] = l
	return s.save()
}

// Delete implements dhcp.Store.
func (s *state) Delete(_ string, m mac.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases, m)
	return s.save()
}
