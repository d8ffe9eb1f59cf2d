package storage

import (
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"maps"
	"math"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
)

// Kind of a stored object.
type Kind string

// The kinds.
const (
	KindImage Kind = "image"
	KindDisk  Kind = "disk"
)

const tempPrefix = ".upload-"

// Deps is what the service needs of others. Its functions are never called with
// the service's lock held: the VM service has locks of its own and calls back.
type Deps struct {
	Log *slog.Logger
	// Users names the VMs that refer to an object, and those of them that run.
	Users func(kind Kind, name string) (all, running []string)
	// RAM is how much more memory files may take when the directory is in RAM;
	// nil when it is on a volume.
	RAM     func() int64
	Kernels Kernels
}

// Kernels is what the VMM knows about kernels (package hv/machine).
type Kernels interface {
	// Check fails for what is no kernel that the VMM can boot.
	Check(r io.ReaderAt) error
	// UnpackedSize is how much Unpack will write; QV_ERR_UNSUPPORTED for a kernel
	// that is started as it is.
	UnpackedSize(r io.ReaderAt) (int64, error)
	Unpack(r io.ReaderAt, w io.Writer) error
	// CheckUnpacked fails for what Unpack did not write whole.
	CheckUnpacked(r io.ReaderAt, size int64) error
}

// Service is the storage of the node.
type Service struct {
	Deps
	db  *store.DB
	dir string

	mu       sync.Mutex
	images   map[string]spec.Image
	disks    map[string]spec.Disk
	pending  map[string]bool // kind/name of uploads that run
	leaving  map[string]bool // kind/name of what is being deleted
	reserved int64           // bytes that running uploads still need
}

// Open reads the records of the files below dir and clears away what an
// interrupted upload left.
func Open(db *store.DB, dir string, deps Deps) (*Service, error) {
	s := &Service{
		Deps: deps, db: db, dir: dir,
		images: make(map[string]spec.Image), disks: make(map[string]spec.Disk), pending: make(map[string]bool), leaving: make(map[string]bool),
	}
	for _, kind := range []Kind{KindImage, KindDisk} {
		if err := s.clean(kind); err != nil {
			return nil, err
		}
	}
	images, err := store.All[spec.Image](db, store.Images)
	if err != nil {
		return nil, err
	}
	for _, i := range images {
		if s.present(KindImage, i.ID, store.Images) {
			s.images[i.ID] = i
		}
	}
	s.cleanUnpacked()
	disks, err := store.All[spec.Disk](db, store.Disks)
	if err != nil {
		return nil, err
	}
	for _, d := range disks {
		if s.present(KindDisk, d.Name, store.Disks) {
			s.disks[d.Name] = d
		}
	}
	return s, nil
}

func (s *Service) clean(kind Kind) error {
	dir := s.folder(kind)
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return qverr.New(qverr.StrOpen, "make %s: %w", dir, err)
	}
	left, err := filepath.Glob(filepath.Join(dir, tempPrefix+"*"))
	if err != nil {
		return qverr.New(qverr.StrOpen, "list %s: %w", dir, err)
	}
	for _, path := range left {
		s.Log.Warn("an interrupted upload is cleared away", "path", path)
		if err := os.Remove(path); err != nil {
			return qverr.New(qverr.StrIO, "clear away an interrupted upload: %w", err)
		}
	}
	return nil
}

// present drops a record whose file is gone: the crash came between the two.
func (s *Service) present(kind Kind, name string, bucket store.Bucket) bool {
	_, err := os.Stat(s.path(kind, name))
	if err == nil {
		return true
	}
	s.Log.Error("forget "+string(kind)+" "+name, "err", qverr.New(qverr.StrOpen, "%w", err))
	if errors.Is(err, fs.ErrNotExist) {
		if err := s.db.Delete(bucket, name); err != nil {
			s.Log.Error("forget "+string(kind)+" "+name, "err", err)
		}
	}
	return false
}

func (s *Service) folder(kind Kind) string {
	if kind == KindImage {
		return filepath.Join(s.dir, "images")
	}
	return filepath.Join(s.dir, "disks")
}

func (s *Service) path(kind Kind, name string) string {
	if kind == KindDisk {
		name += ".raw"
	}
	return filepath.Join(s.folder(kind), name)
}

// checkName accepts names of 1 to 64 letters, digits, ".", "_" and "-" that do
// not begin with a dot, which keeps temporary files apart.
func checkName(name string) error {
	const letters = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789._-"
	if len(name) < 1 || len(name) > 64 || strings.Trim(name, letters) != "" || name[0] == '.' {
		return qverr.New(qverr.Inval, "%.64q is not a name of 1 to 64 letters, digits, dots, underscores and dashes that begins with no dot", name)
	}
	return nil
}

// allocated is the space that a file takes.
func allocated(path string) int64 {
	info, err := os.Stat(path)
	if err != nil {
		return 0
	}
	if st, ok := info.Sys().(*syscall.Stat_t); ok {
		return st.Blocks * 512
	}
	return info.Size()
}

// Free is how many bytes can still be stored.
func (s *Service) Free() (int64, error) {
	limit := s.ramLimit()
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.free(limit)
}

func (s *Service) ramLimit() int64 {
	if s.RAM == nil {
		return math.MaxInt64
	}
	return s.RAM()
}

// free needs the lock; limit is from ramLimit.
func (s *Service) free(limit int64) (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(s.dir, &st); err != nil {
		return 0, qverr.New(qverr.StrIO, "free space of %s: %w", s.dir, err)
	}
	free := min(int64(st.Bavail)*st.Bsize, limit)
	return max(free-s.reserved, 0), nil
}

func key(kind Kind, name string) string { return string(kind) + "/" + name }

func missing(kind Kind, name string) error {
	return qverr.New(qverr.NoEnt, "there is no %s %.64q", kind, name)
}

// image and disk find what is there and not being deleted.
func (s *Service) image(id string) (spec.Image, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	i, ok := s.images[id]
	if !ok || s.leaving[key(KindImage, id)] {
		return spec.Image{}, missing(KindImage, id)
	}
	return i, nil
}

func (s *Service) disk(name string) (spec.Disk, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	d, ok := s.disks[name]
	if !ok || s.leaving[key(KindDisk, name)] {
		return spec.Disk{}, missing(KindDisk, name)
	}
	return d, nil
}

// ImageKind is the kind of an image; QV_ERR_NOENT when there is none.
func (s *Service) ImageKind(id string) (spec.ImageKind, error) {
	i, err := s.image(id)
	return i.Kind, err
}

// HasDisk is nil when there is such a disk, else QV_ERR_NOENT.
func (s *Service) HasDisk(name string) error {
	_, err := s.disk(name)
	return err
}

// Images lists the images by name.
func (s *Service) Images() []spec.Image {
	s.mu.Lock()
	out := slices.Collect(maps.Values(s.images))
	s.mu.Unlock()
	for i := range out {
		out[i] = s.showImage(out[i])
	}
	slices.SortFunc(out, func(a, b spec.Image) int { return strings.Compare(a.ID, b.ID) })
	return orEmpty(out)
}

func orEmpty[T any](list []T) []T {
	if list == nil {
		return []T{}
	}
	return list
}

func (s *Service) showImage(i spec.Image) spec.Image {
	i.AllocatedBytes = allocated(s.path(KindImage, i.ID)) + allocated(s.unpackedPath(i.ID))
	i.UsedBy, _ = s.Users(KindImage, i.ID)
	return i
}

// Image finds one image; QV_ERR_NOENT when there is none.
func (s *Service) Image(id string) (spec.Image, error) {
	i, err := s.image(id)
	if err != nil {
		return spec.Image{}, err
	}
	return s.showImage(i), nil
}

// Disks lists the disks by name.
func (s *Service) Disks() []spec.Disk {
	s.mu.Lock()
	out := slices.Collect(maps.Values(s.disks))
	s.mu.Unlock()
	for i := range out {
		out[i] = s.showDisk(out[i])
	}
	slices.SortFunc(out, func(a, b spec.Disk) int { return strings.Compare(a.Name, b.Name) })
	return orEmpty(out)
}

func (s *Service) showDisk(d spec.Disk) spec.Disk {
	d.AllocatedBytes = allocated(s.path(KindDisk, d.Name))
	d.UsedBy, d.LockedBy = s.Users(KindDisk, d.Name)
	return d
}

// Disk finds one disk; QV_ERR_NOENT when there is none.
func (s *Service) Disk(name string) (spec.Disk, error) {
	d, err := s.disk(name)
	if err != nil {
		return spec.Disk{}, err
	}
	return s.showDisk(d), nil
}

// DeleteImage removes an image that no VM names.
func (s *Service) DeleteImage(id string) error {
	return s.remove(KindImage, id, func() bool { _, ok := s.images[id]; return ok }, func() { delete(s.images, id) })
}

// DeleteDisk removes a disk that no VM names.
func (s *Service) DeleteDisk(name string) error {
	return s.remove(KindDisk, name, func() bool { _, ok := s.disks[name]; return ok }, func() { delete(s.disks, name) })
}

// remove hides the object first, so that no VM comes to name it, and deletes
// the file before the record: Open forgets a record without a file, but nobody
// would find a file without a record. has and drop run under the lock.
func (s *Service) remove(kind Kind, name string, has func() bool, drop func()) error {
	k := key(kind, name)
	s.mu.Lock()
	if !has() || s.leaving[k] {
		s.mu.Unlock()
		return missing(kind, name)
	}
	s.leaving[k] = true
	s.mu.Unlock()
	err := s.removeHidden(kind, name)
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leaving, k)
	if err == nil {
		drop()
	}
	return err
}

func (s *Service) removeHidden(kind Kind, name string) error {
	if used, _ := s.Users(kind, name); len(used) > 0 {
		return qverr.New(qverr.Busy, "%s %s is used by %s", kind, name, strings.Join(used, ", ")).With("used_by", used)
	}
	if kind == KindImage {
		s.removeUnpacked(name)
	}
	if err := os.Remove(s.path(kind, name)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.StrIO, "delete %s %s: %w", kind, name, err)
	}
	return s.db.Delete(bucketOf(kind), name)
}
