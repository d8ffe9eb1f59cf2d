package trust

import (
	"context"
	"log/slog"
	"os"
	"os/exec"
	"sync"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/medium"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
	"quantavirt/pqc/attest"
)

// Init is PID 1 as the service uses it.
type Init interface {
	Unlock(ctx context.Context, recoveryKey string) error
}

// Deps is what the service stands on.
type Deps struct {
	Log      *slog.Logger
	Init     Init // nil on a machine without our PID 1
	Boot     func() initapi.Boot
	Running  func() int // virtual machines
	Node     func() attest.Node
	Keystore string

	// Where things are; the machine's own if empty.
	TPM, EventLog, EFI string
	// Mount calls use with a folder that shows the EFI system partition.
	Mount func(device string, use func(dir string) error) error
}

// Service is the node's trust.
type Service struct {
	Deps
	identity *attest.Identity

	tpm sync.Mutex // one at a time talks to it

	mu    sync.Mutex
	trust *spec.Trust // as nothing of it changes during a boot
}

// New makes the service, and at first boot the node's identity.
func New(d Deps) (*Service, error) {
	if d.TPM == "" {
		d.TPM = tpm.DevicePath
	}
	if d.EventLog == "" {
		d.EventLog = tpm.LogPath
	}
	if d.EFI == "" {
		d.EFI = "/sys/firmware/efi"
	}
	if d.Mount == nil {
		d.Mount = func(device string, use func(string) error) error { return medium.With(device, false, use) }
	}
	id, err := attest.OpenIdentity(d.Keystore)
	if err != nil {
		return nil, err
	}
	return &Service{Deps: d, identity: id}, nil
}

// With calls use with the TPM. QV_ERR_NODEV: the machine has none.
func (s *Service) With(use func(*tpm.Device) error) error {
	s.tpm.Lock()
	defer s.tpm.Unlock()
	d, err := tpm.Open(s.TPM)
	if err != nil {
		return err
	}
	defer func() { _ = d.Close() }()
	return use(d)
}

// loadCrypt loads the kernel's encryption of disks, by the program that the kernel
// itself asks for modules.
func loadCrypt(ctx context.Context) error {
	if _, err := os.Stat("/dev/mapper/control"); err == nil {
		return nil
	}
	for _, module := range []string{"dm_crypt", "xts", "aesni_intel"} {
		if err := exec.CommandContext(ctx, "/init", "-q", "--", module).Run(); err != nil && module == "dm_crypt" {
			return qverr.New(qverr.Unsupported, "the kernel's module %s is not there: %w", module, err)
		}
	}
	return nil
}
