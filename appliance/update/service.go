package update

import (
	"context"
	"encoding/json"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"slices"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/internal/bundle"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// Init is PID 1 as the service uses it.
type Init interface {
	Reboot(ctx context.Context) error
	// Kexec ends everything in order and starts the kernel that was loaded.
	Kexec(ctx context.Context) error
	// Blessed says that this boot is no trial any more.
	Blessed(ctx context.Context) error
}

// VMs are the virtual machines of the node.
type VMs interface {
	List() []spec.VM
	Start(ctx context.Context, name, requestID string) (spec.Task, error)
}

// Deps is what the service stands on.
type Deps struct {
	Log     *slog.Logger
	DB      *store.DB
	Tasks   *task.Manager
	Init    Init // nil on a machine without our PID 1
	VMs     VMs
	Uplink  func() spec.UplinkInfo
	Cards   func(ctx context.Context) []spec.Card
	Ready   func(ctx context.Context) error // asks the API itself
	RAM     func() int64                    // as storage.Deps.RAM
	DataDir string
	Version string // of the running system
	Etc     string // /etc/quantavirt of the image
	PStore  string // /sys/fs/pstore
	// Mount calls fn with the EFI system partition; nil: it is mounted from the
	// device that PID 1 found.
	Mount func(device string, write bool, fn func(Volume) error) error
	// Reseal seals the encrypted data volume for one more system, before it is
	// tried; nil does nothing.
	Reseal func(uki io.ReaderAt, size int64, name string) error
	// Starts says why the firmware would not start a system; nil does nothing.
	Starts func(uki io.ReaderAt, size int64) error
	// Broken is why a system on trial cannot pass any more: it is given up at once.
	// "" has it watched.
	Broken string
	// Uptime is the time since the kernel started.
	Uptime func() time.Duration
	// LoadKernel is kexec_file_load(2).
	LoadKernel func(kernel, initrd *os.File, cmdline string) error
}

// Service updates the node.
type Service struct {
	Deps
	build string        // of the running image
	every time.Duration // how often a system on trial is looked at

	known chan struct{} // closed when PID 1's boot is known

	esp  sync.Mutex // one at a time mounts the partition
	mu   sync.Mutex
	boot initapi.Boot
	busy bool
}

// bootTime is how long a request waits for PID 1 to know what the node booted
// from.
const bootTime = 30 * time.Second

// Medium names of PID 1 for disks that the node boots from by itself.
const (
	mediumUEFI = "uefi-disk"
	mediumBIOS = "bios-disk"
	mediumPXE  = "pxe" // the network, whatever booted from it
)

// New makes the service. Start must follow once PID 1's boot is known.
func New(deps Deps) *Service {
	s := &Service{Deps: deps, every: lookEvery, known: make(chan struct{})}
	if s.Mount == nil {
		s.Mount = mounted
	}
	if s.Uptime == nil {
		s.Uptime = uptime
	}
	if s.LoadKernel == nil {
		s.LoadKernel = loadKernel
	}
	var image struct {
		Build string `json:"build"`
	}
	if data, err := os.ReadFile(filepath.Join(s.Etc, "image.json")); err == nil {
		_ = json.Unmarshal(data, &image) // what is damaged has no build
	}
	s.build = image.Build
	return s
}

// await waits until PID 1's boot is known.
func (s *Service) await(ctx context.Context) error {
	select {
	case <-s.known:
		return nil
	case <-time.After(bootTime):
	case <-ctx.Done():
	}
	return qverr.New(qverr.Again, "PID 1 is still looking for what the node booted from")
}

// where is the partition and the slot of this boot.
type where struct {
	device   string
	firmware Firmware
	running  uint32 // 0: not from a slot
	bootID   string
}

// where says whether this boot has slots.
func (s *Service) where() (where, bool) {
	s.mu.Lock()
	boot := s.boot
	s.mu.Unlock()
	w := where{device: boot.ESPDevice, bootID: boot.BootID}
	if boot.Medium == mediumBIOS {
		w.firmware = BIOS
	}
	w.running, _ = slot.ParseSequence(boot.Slot)
	return w, w.device != "" && (boot.Medium == mediumUEFI || boot.Medium == mediumBIOS)
}

// disk calls fn with what the partition holds.
func (s *Service) disk(write bool, fn func(w where, d *disk) error) error {
	w, ok := s.where()
	if !ok {
		return noSlots()
	}
	s.esp.Lock()
	defer s.esp.Unlock()
	return s.Mount(w.device, write, func(v Volume) error {
		d, err := readDisk(v, w.firmware)
		if err != nil {
			return err
		}
		return fn(w, d)
	})
}

// fromNetwork says that the node was booted from the network.
func (s *Service) fromNetwork() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.boot.Medium == mediumPXE
}

func noSlots() *qverr.Error {
	return qverr.New(qverr.Unsupported, "the node has no slots: it did not boot from a disk that it is installed on").
		WithHint("install it, or start the new system directly with --kexec; at the next cold boot, what boots the node decides again")
}

// record is what the service stores.
type record struct {
	Counter  uint64           `json:"counter"` // of the newest system that was blessed
	Keys     bundle.KeyChange `json:"keys"`    // all changes so far
	Failures []failure        `json:"failures,omitempty"`
	Armed    *armed           `json:"armed,omitempty"`
	Last     *lastBundle      `json:"last,omitempty"`
}

// failure is a system that did not pass its trial.
type failure struct {
	Version string    `json:"version"`
	SHA256  string    `json:"sha256"`
	Reason  string    `json:"reason"`
	Time    time.Time `json:"time"`
}

// armed is the update that is under way over a reboot.
type armed struct {
	Sequence uint32           `json:"sequence"`
	BootID   string           `json:"boot_id"` // of the boot that armed it
	VMs      []string         `json:"vms"`     // that ran
	Keys     bundle.KeyChange `json:"keys"`
	Restored string           `json:"restored,omitempty"` // boot in which VMs were started again
}

// lastBundle is the bundle that was verified last.
type lastBundle struct {
	Version   string    `json:"version"`
	Counter   uint64    `json:"counter"`
	Notes     string    `json:"notes"`
	CreatedAt time.Time `json:"created_at"`
	Verified  time.Time `json:"verified_at"`
}

const (
	recordKey   = "update"
	maxFailures = 32
)

func (s *Service) record() (record, error) {
	var r record
	err := s.DB.Get(store.Settings, recordKey, &r)
	if qverr.CodeOf(err) == qverr.NoEnt {
		err = nil
	}
	return r, err
}

// change changes the record.
func (s *Service) change(fn func(*record)) error {
	return s.DB.Update(func(tx *store.Tx) error {
		var r record
		if err := tx.Get(store.Settings, recordKey, &r); err != nil && qverr.CodeOf(err) != qverr.NoEnt {
			return err
		}
		fn(&r)
		return tx.Put(store.Settings, recordKey, r)
	})
}

// fail remembers a system that failed its trial, once.
func (r *record) fail(f failure) {
	r.Failures = slices.DeleteFunc(r.Failures, func(old failure) bool { return old.SHA256 == f.SHA256 && old.Version == f.Version })
	r.Failures = append(r.Failures, f)
	if n := len(r.Failures) - maxFailures; n > 0 {
		r.Failures = slices.Delete(r.Failures, 0, n)
	}
}

// Build is that of the running image, "" if it was not made from one.
func (s *Service) Build() string { return s.build }

// Keys are those that sign bundles which the node takes now.
func (s *Service) Keys() (bundle.Keys, error) {
	rec, err := s.record()
	if err != nil {
		return nil, err
	}
	return s.keys(rec)
}

// keys are those that are trusted now.
func (s *Service) keys(r record) (bundle.Keys, error) {
	keys, err := bundle.LoadKeys(filepath.Join(s.Etc, "update-keys"))
	if err != nil {
		return nil, err
	}
	if r.Keys.Empty() {
		return keys, nil
	}
	return keys.Apply(r.Keys)
}

// applyKeys takes a change into the record: the last word about a key counts.
func (r *record) applyKeys(c bundle.KeyChange) {
	for _, raw := range c.Add {
		id, err := bundle.ParseKey(raw)
		if err != nil {
			continue // the manifest was checked
		}
		r.Keys.Remove = slices.DeleteFunc(r.Keys.Remove, func(s string) bool { return s == id.String() })
		r.Keys.Add = append(r.Keys.Add, raw)
	}
	for _, id := range c.Remove {
		r.Keys.Add = slices.DeleteFunc(r.Keys.Add, func(raw []byte) bool {
			have, err := bundle.ParseKey(raw)
			return err == nil && have.String() == id
		})
		if !slices.Contains(r.Keys.Remove, id) {
			r.Keys.Remove = append(r.Keys.Remove, id)
		}
	}
}

// take lets one update at a time through.
func (s *Service) take() error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.busy {
		return qverr.New(qverr.Busy, "another update is under way")
	}
	s.busy = true
	return nil
}

func (s *Service) release() {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.busy = false
}
