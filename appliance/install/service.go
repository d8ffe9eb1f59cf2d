package install

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"log/slog"
	"net/http"
	"os"
	"path/filepath"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/medium"
	"quantavirt/appliance/task"
	"quantavirt/internal/disks"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
)

const (
	// MaxSystem bounds an uploaded system, in bytes.
	MaxSystem = 512 << 20
	// downloadLimit is how long a server may take to send one.
	downloadLimit = 30 * time.Minute
)

// Deps are what the service stands on.
type Deps struct {
	Log   *slog.Logger
	Tasks *task.Manager
	Disks func() ([]disks.Disk, error) // with who uses them
	Boot  func() initapi.Boot
	// Config is the node's configuration, to lie on the new medium; nil for none.
	Config func() []byte
	// Spool is a folder for a system that was uploaded or downloaded, and Free
	// the space there, in bytes.
	Spool string
	Free  func() (int64, error)
	// CanEncrypt says why Encrypt would fail.
	CanEncrypt func(ctx context.Context) error
	// Encrypt makes an encrypted volume and opens it as a device, see trust.Encrypt.
	Encrypt func(ctx context.Context, p sealed.Place, recoveryKey string, uki *ukifile.File) (device string, closeDevice func() error, err error)
	Tools   Tools  // the image's own if empty
	Boots   string // folder of the boot loaders, the image's own if empty
}

// Service installs.
type Service struct {
	Deps
	busy sync.Mutex
}

// New makes the service.
func New(d Deps) *Service {
	if d.Tools.Mke2fs == nil {
		d.Tools = inImage
	}
	if d.Boots == "" {
		d.Boots = bootDir
	}
	return &Service{Deps: d}
}

// Source gives the system that is installed; the zero value is the boot medium.
type Source struct {
	spooled string // file of an upload, removed when it was used
	URL     string // HTTP or HTTPS
	SHA256  string // hex, of what it gives; "" for any
}

// Check says which disk a request means, or why it is refused.
func (s *Service) Check(r Request) (disks.Disk, error) {
	all, err := s.Disks()
	if err != nil {
		return disks.Disk{}, err
	}
	return r.choose(all)
}

// Upload takes a system from a request of the API. It must be used by Start or
// dropped.
func (s *Service) Upload(body io.Reader, length int64) (Source, error) {
	path, _, err := s.spool(body, length)
	return Source{spooled: path}, err
}

// Drop removes an upload that is not used.
func (src Source) Drop() {
	if src.spooled != "" {
		_ = os.Remove(src.spooled)
	}
}

// Start begins an installation as a task. Without a source the system comes from
// the boot medium. What is wrong with the request is said at once.
func (s *Service) Start(r Request, src Source, requestID string) (spec.Task, error) {
	d, err := s.Check(r)
	if err == nil && r.RecoveryKey != "" {
		if _, err = sealed.ParseRecoveryKey(r.RecoveryKey); err == nil {
			err = s.CanEncrypt(context.Background())
		}
	}
	if err == nil && !r.DataOnly && src == (Source{}) && s.Boot().ESPDevice == "" {
		err = qverr.New(qverr.NoEnt, "the node was not booted from a medium that its system could be copied from").
			WithHint("upload the unified kernel image with --file, or name it with --url")
	}
	if err == nil && !s.busy.TryLock() {
		err = qverr.New(qverr.Busy, "an installation is under way")
	}
	if err != nil {
		src.Drop()
		return spec.Task{}, err
	}
	t, err := s.Tasks.Start(task.Spec{Kind: "system.install", Target: "disks" + d.Device, RequestID: requestID, Cancellable: true},
		func(ctx context.Context, p *task.Progress) error {
			defer s.busy.Unlock()
			defer src.Drop()
			p.Phase(phaseCheck)
			err := s.install(ctx, &job{Request: r, disk: d, config: s.Config(), tools: s.Tools, encrypt: s.Encrypt, now: time.Now()}, src, p)
			if err == nil {
				s.Log.Info("installed", "disk", d.String(), "data_only", r.DataOnly)
			}
			return err
		})
	if err != nil {
		s.busy.Unlock()
		src.Drop()
	}
	return t, err
}

// install brings system and loaders together and writes.
func (s *Service) install(ctx context.Context, j *job, src Source, p *task.Progress) (err error) {
	if j.DataOnly {
		return j.write(ctx, p)
	}
	if j.loaders, err = readLoaders(s.Boots); err != nil {
		return err
	}
	path := src.spooled
	switch {
	case path != "":
	case src.URL != "":
		p.Phase("download")
		if path, err = s.download(ctx, src); err != nil {
			return err
		}
		defer func() { _ = os.Remove(path) }()
	default:
		return medium.With(s.Boot().ESPDevice, false, func(dir string) error {
			path, err := runningSystem(dir, s.Boot().Slot)
			if err != nil {
				return err
			}
			return j.from(ctx, path, p)
		})
	}
	return j.from(ctx, path, p)
}

// from installs the system in a file.
func (j *job) from(ctx context.Context, path string, p *task.Progress) (err error) {
	if j.system, err = openSystem(path); err != nil {
		return err
	}
	defer func() { _ = j.system.f.Close() }()
	return j.write(ctx, p)
}

// runningSystem is the file of the booted slot on a mounted medium, or of the
// one that would be booted.
func runningSystem(dir, booted string) (string, error) {
	folder := filepath.Join(dir, filepath.FromSlash(slot.UKIFolder))
	entries, err := os.ReadDir(folder)
	if err != nil {
		return "", qverr.New(qverr.NoEnt, "the boot medium has no system: %w", err)
	}
	var names []string
	for _, e := range entries {
		n, ok := slot.ParseName(e.Name())
		if ok && slot.Digits(n.Sequence) == booted {
			return filepath.Join(folder, e.Name()), nil
		}
		names = append(names, e.Name())
	}
	n, ok := slot.First(names)
	if !ok {
		return "", qverr.New(qverr.NoEnt, "the boot medium has no system in %s", slot.UKIFolder)
	}
	return filepath.Join(folder, n.String()), nil
}

// spool writes a system into a file of a known length and returns its SHA-256.
func (s *Service) spool(body io.Reader, length int64) (path, digest string, err error) {
	if length > MaxSystem {
		return "", "", qverr.New(qverr.Inval, "the system has %d bytes, at most %d are taken", length, MaxSystem).With("limit_bytes", MaxSystem)
	}
	if free, err := s.Free(); err != nil {
		return "", "", err
	} else if length > free {
		return "", "", qverr.New(qverr.NoSpc, "the system needs %d bytes for the moment, %d are free", length, free)
	}
	if err := os.MkdirAll(s.Spool, 0o700); err != nil {
		return "", "", qverr.New(qverr.IO, "%w", err)
	}
	f, err := os.CreateTemp(s.Spool, "install-*.efi")
	if err != nil {
		return "", "", qverr.New(qverr.IO, "%w", err)
	}
	sum := sha256.New()
	_, err = io.CopyN(io.MultiWriter(f, sum), body, length)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		return "", "", qverr.New(qverr.IO, "receive the system: %w", err)
	}
	return f.Name(), hex.EncodeToString(sum.Sum(nil)), nil
}

func (s *Service) download(ctx context.Context, src Source) (path string, err error) {
	ctx, cancel := context.WithTimeout(ctx, downloadLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.URL, nil)
	if err != nil {
		return "", qverr.New(qverr.Inval, "%w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return "", qverr.New(qverr.IO, "download the system: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.ContentLength <= 0 {
		return "", qverr.New(qverr.IO, "download %s: %s, %d bytes", src.URL, resp.Status, resp.ContentLength)
	}
	path, digest, err := s.spool(resp.Body, resp.ContentLength)
	if err == nil && src.SHA256 != "" && digest != src.SHA256 {
		_ = os.Remove(path)
		err = qverr.New(qverr.Inval, "%s has the SHA-256 %s, not %s", src.URL, digest, src.SHA256)
	}
	return path, err
}
