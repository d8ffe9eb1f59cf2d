package channel

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"

	"quantavirt/internal/durable"
	"quantavirt/internal/qverr"
)

// Fingerprint names an identity: sha256: and the SHA-256 of its public key, as that of a
// node's attestation.
func Fingerprint(public []byte) string {
	sum := sha256.Sum256(public)
	return "sha256:" + hex.EncodeToString(sum[:])
}

// Peer is an identity that is trusted.
type Peer struct {
	Name        string   `json:"name"`
	Fingerprint string   `json:"fingerprint"`
	Protocols   []string `json:"protocols"` // what it may be connected to for
}

// Trust is the store of peers, a file.
type Trust struct {
	path  string
	mu    sync.RWMutex
	peers []Peer // sorted by name
}

// maxPeers bounds the store.
const maxPeers = 4096

// OpenTrust reads a store; one that is not there is empty. QV_ERR_CONFIG: it is damaged.
func OpenTrust(path string) (*Trust, error) {
	t := &Trust{path: path}
	f, err := os.Open(path)
	if errors.Is(err, fs.ErrNotExist) {
		return t, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "trusted peers: %w", err)
	}
	defer func() { _ = f.Close() }()
	d := json.NewDecoder(f)
	d.DisallowUnknownFields()
	if err := d.Decode(&t.peers); err != nil {
		return nil, qverr.New(qverr.Config, "trusted peers %s: %w", path, err)
	}
	for i, p := range t.peers {
		if err := p.check(); err != nil {
			return nil, qverr.New(qverr.Config, "trusted peers %s: %w", path, err)
		}
		if slices.ContainsFunc(t.peers[:i], p.sameAs) {
			return nil, qverr.New(qverr.Config, "trusted peers %s: %s is there twice", path, p.Name)
		}
	}
	return t, nil
}

func (p Peer) sameAs(other Peer) bool {
	return p.Name == other.Name || p.Fingerprint == other.Fingerprint
}

func (p Peer) check() error {
	digits, ok := strings.CutPrefix(p.Fingerprint, "sha256:")
	raw, err := hex.DecodeString(digits)
	if !ok || err != nil || len(raw) != sha256.Size || digits != strings.ToLower(digits) {
		return qverr.New(qverr.Inval, "peer %.64q: its fingerprint is not sha256: and 64 hex digits", p.Name)
	}
	if p.Name == "" || len(p.Name) > 64 || len(p.Protocols) == 0 || len(p.Protocols) > 16 {
		return qverr.New(qverr.Inval, "peer %.64q: it needs a name of 1 to 64 bytes, and 1 to 16 protocols", p.Name)
	}
	for _, protocol := range p.Protocols {
		if err := checkProtocol(protocol); err != nil {
			return err
		}
	}
	return nil
}

// Peers lists the peers by name.
func (t *Trust) Peers() []Peer {
	t.mu.RLock()
	defer t.mu.RUnlock()
	return slices.Clone(t.peers)
}

// Add trusts a peer. QV_ERR_EXIST: its name or identity is there.
func (t *Trust) Add(p Peer) error {
	if err := p.check(); err != nil {
		return err
	}
	t.mu.Lock()
	defer t.mu.Unlock()
	if slices.ContainsFunc(t.peers, p.sameAs) {
		return qverr.New(qverr.Exist, "peer %s or its identity is trusted already", p.Name)
	}
	if len(t.peers) >= maxPeers {
		return qverr.New(qverr.Limit, "%d peers are trusted, which is all that may be", maxPeers)
	}
	peers := append(slices.Clone(t.peers), p)
	slices.SortFunc(peers, func(a, b Peer) int { return strings.Compare(a.Name, b.Name) })
	return t.replace(peers)
}

// Remove trusts a peer no more; connections that stand go on. QV_ERR_NOENT: there is none.
func (t *Trust) Remove(name string) error {
	t.mu.Lock()
	defer t.mu.Unlock()
	peers := slices.DeleteFunc(slices.Clone(t.peers), func(p Peer) bool { return p.Name == name })
	if len(peers) == len(t.peers) {
		return qverr.New(qverr.NoEnt, "no peer %.64q is trusted", name)
	}
	return t.replace(peers)
}

// find is who an identity is. PQC_ERR_VERIFY: nobody who is trusted for the protocol.
func (t *Trust) find(public []byte, protocol string) (Peer, error) {
	t.mu.RLock()
	defer t.mu.RUnlock()
	fingerprint := Fingerprint(public)
	for _, p := range t.peers {
		if p.Fingerprint == fingerprint {
			if !slices.Contains(p.Protocols, protocol) {
				return Peer{}, qverr.New(qverr.PQCVerify, "peer %s is not trusted for %s", p.Name, protocol)
			}
			return p, nil
		}
	}
	return Peer{}, qverr.New(qverr.PQCVerify, "the identity %s is not trusted", fingerprint)
}

// replace writes the file, whole or not at all.
func (t *Trust) replace(peers []Peer) error {
	data, err := json.MarshalIndent(peers, "", "  ")
	if err != nil {
		return qverr.New(qverr.Generic, "trusted peers: %w", err)
	}
	if err := writeFile(t.path, append(data, '\n')); err != nil {
		return qverr.New(qverr.CodeOf(err), "trusted peers: %w", err)
	}
	t.peers = peers
	return nil
}

func writeFile(path string, data []byte) error {
	f, err := os.CreateTemp(filepath.Dir(path), "."+filepath.Base(path)+"-*")
	if err != nil {
		return err
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Sync(), f.Close()); err == nil {
		err = os.Rename(f.Name(), path)
	}
	if err != nil {
		return errors.Join(err, os.Remove(f.Name()))
	}
	return durable.SyncDir(filepath.Dir(path))
}
