package install

import (
	"context"
	"io"
	"log/slog"
	"os"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/medium"
	"quantavirt/appliance/task"
	"quantavirt/internal/bundle"
	"quantavirt/internal/disks"
	"quantavirt/internal/efivar"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
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
	// Build is that of the running image: which system of a bundle is installed.
	Build string
	// Keys are those that sign bundles which the node takes.
	Keys func() (bundle.Keys, error)
	// Firmware are the variables of the machine's UEFI; nil: it has none, or the
	// node was not booted by it.
	Firmware efivar.Variables
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
	received        // by an upload; its file is removed when it was used
	URL      string // HTTP or HTTPS
	SHA256   string // hex, of what it gives; "" for any
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
	got, _, err := s.receive(body, length)
	return Source{received: got}, err
}

// Drop removes an upload that is not used.
func (src Source) Drop() {
	if src.path != "" {
		_ = os.Remove(src.path)
	}
}

// Start begins an installation as a task. Without a source the system comes from
// the boot medium. What is wrong with the request is said at once.
func (s *Service) Start(r Request, src Source, requestID string) (spec.Task, error) {
	d, err := s.Check(r)
	if err == nil && r.RecoveryKey != "" {
		_, err = sealed.ParseRecoveryKey(r.RecoveryKey)
	}
	if err == nil && r.encrypts() {
		err = s.CanEncrypt(context.Background())
	}
	if err == nil && !r.DataOnly && src == (Source{}) && s.Boot().ESPDevice == "" {
		err = qverr.New(qverr.NoEnt, "the node was not booted from a medium that its system could be copied from").
			WithHint("upload a unified kernel image or an update bundle with --file, or name one with --url")
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
			err := s.install(ctx, &job{
				Request: r, disk: d, config: s.Config(), tools: s.Tools, encrypt: s.Encrypt, firmware: s.Firmware, now: time.Now(),
			}, src, p)
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
	got := src.received
	switch {
	case got.path != "":
	case src.URL != "":
		p.Phase("download")
		if got, err = s.download(ctx, src); err != nil {
			return err
		}
		defer func() { _ = os.Remove(got.path) }()
	default:
		return medium.With(s.Boot().ESPDevice, false, func(dir string) error {
			got, err := runningSystem(dir, s.Boot().Slot)
			if err != nil {
				return err
			}
			return j.from(ctx, got, p)
		})
	}
	return j.from(ctx, got, p)
}

// from installs the system in a file.
func (j *job) from(ctx context.Context, got received, p *task.Progress) (err error) {
	if j.system, err = openSystem(got); err != nil {
		return err
	}
	defer func() { _ = j.system.f.Close() }()
	return j.write(ctx, p)
}
