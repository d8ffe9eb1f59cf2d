package backup

import (
	"encoding/json"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/durable"
	"quantavirt/internal/qverr"
)

// Deps is what the service stands on.
type Deps struct {
	Log     *slog.Logger
	DB      *store.DB
	DataDir string
	Version string
	VMs     func() []spec.VM
	Images  func() []spec.Image
	Disks   func() []spec.Disk
	Node    func() (id, hostname string)
	Restart func() // has the daemon started anew
}

// Service makes and restores backups, one at a time.
type Service struct {
	Deps
	mu sync.Mutex
}

// New makes the service.
func New(deps Deps) *Service { return &Service{Deps: deps} }

// Prepared is a backup whose parts are collected; Close must follow.
type Prepared struct {
	manifest Manifest
	list     []source
	secret   string
	snapshot string
}

// Prepare collects the state as it is now. QV_ERR_INVAL: the passphrase is too short.
func (s *Service) Prepare(secret string) (*Prepared, error) {
	if err := CheckPassphrase(secret); err != nil {
		return nil, err
	}
	f, err := os.CreateTemp(s.DataDir, snapshots)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "backup: %w", err)
	}
	p := &Prepared{secret: secret, snapshot: f.Name()}
	err = errors.Join(s.DB.Snapshot(f), f.Close())
	if err == nil {
		p.list, err = collect(s.DataDir, p.snapshot)
	}
	if err != nil {
		p.Close()
		return nil, err
	}
	id, hostname := s.Node()
	p.manifest = Manifest{Format: format, Version: s.Version, NodeID: id, Hostname: hostname, CreatedAt: time.Now().UTC(), Images: []File{}, Disks: []File{}}
	for _, one := range p.list {
		p.manifest.Files = append(p.manifest.Files, one.File)
	}
	for _, i := range s.Images() {
		p.manifest.Images = append(p.manifest.Images, File{Name: i.ID, Size: i.SizeBytes, SHA256: i.Sha256})
	}
	for _, d := range s.Disks() {
		p.manifest.Disks = append(p.manifest.Disks, File{Name: d.Name, Size: d.SizeBytes, SHA256: d.Sha256})
	}
	return p, nil
}

// Write writes the backup.
func (p *Prepared) Write(w io.Writer) error {
	s, err := newSealer(w, p.secret)
	if err != nil {
		return err
	}
	if err := pack(s, p.manifest, p.list); err != nil {
		return err
	}
	return s.Close()
}

// Close removes what Prepare made.
func (p *Prepared) Close() { _ = os.Remove(p.snapshot) }

// Restore reads a backup, checks all of it and has the daemon started anew with it.
// Until that, and when it fails, everything is as it was. QV_ERR_STATE: a VM runs;
// QV_ERR_CONFIG: the backup is damaged; QV_ERR_INVAL: the passphrase is wrong.
func (s *Service) Restore(r io.Reader, secret string) (Manifest, error) {
	if !s.mu.TryLock() {
		return Manifest{}, qverr.New(qverr.Busy, "another restore is under way")
	}
	defer s.mu.Unlock()
	if err := s.idle(); err != nil {
		return Manifest{}, err
	}
	o, err := newOpener(r, secret)
	if err != nil {
		return Manifest{}, err
	}
	dir := filepath.Join(s.DataDir, staging)
	defer func() { _ = os.RemoveAll(dir) }()
	if err := errors.Join(os.RemoveAll(dir), os.Mkdir(dir, 0o700)); err != nil {
		return Manifest{}, qverr.New(qverr.CodeOf(err), "restore: %w", err)
	}
	m, err := unpack(o, dir)
	if err != nil {
		return m, err
	}
	if err := s.try(dir, m); err != nil {
		return m, err
	}
	if err := s.idle(); err != nil {
		return m, err
	}
	if err := s.commit(dir); err != nil {
		return m, err
	}
	s.Log.Warn("a backup is restored: the daemon starts anew with it", "of", m.Hostname, "made", m.CreatedAt)
	s.Restart()
	return m, nil
}

// idle refuses while a VM runs: its definition would be another's.
func (s *Service) idle() error {
	var names []string
	for _, v := range s.VMs() {
		if v.State == spec.VMStateRUNNING || v.State == spec.VMStatePAUSED {
			names = append(names, v.Name)
		}
	}
	if names != nil {
		return qverr.New(qverr.State, "nothing can be restored while VMs run: %s", strings.Join(names, ", ")).
			WithHint("stop them first: quantavirt vm stop NAME")
	}
	return nil
}

// try opens the state as the next daemon will, and notes the manifest beside it.
func (s *Service) try(dir string, m Manifest) error {
	db, err := store.Open(filepath.Join(dir, stateFile))
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "the state in the backup: %w", err)
	}
	if err := db.Close(); err != nil {
		return err
	}
	data, err := json.Marshal(m)
	if err != nil {
		return qverr.New(qverr.Generic, "restore: %w", err)
	}
	f, err := os.OpenFile(filepath.Join(dir, manifestFile), os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err == nil {
		_, err = f.Write(data)
		err = errors.Join(err, f.Sync(), f.Close())
	}
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "restore: %w", err)
	}
	return nil
}

// commit makes the unpacked state the one that is wanted: from here on it counts.
func (s *Service) commit(dir string) error {
	err := os.RemoveAll(filepath.Join(s.DataDir, before))
	for _, folder := range append([]string{""}, folders...) {
		if _, statErr := os.Stat(filepath.Join(dir, folder)); statErr == nil {
			err = errors.Join(err, durable.SyncDir(filepath.Join(dir, folder)))
		}
	}
	if err == nil {
		err = os.Rename(dir, filepath.Join(s.DataDir, wanted))
	}
	if err = errors.Join(err, durable.SyncDir(s.DataDir)); err != nil {
		return qverr.New(qverr.CodeOf(err), "restore: %w", err)
	}
	return nil
}
