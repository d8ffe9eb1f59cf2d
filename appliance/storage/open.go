package storage

import (
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// OpenImage opens an image of the given kind for a VM.
func (s *Service) OpenImage(id string, kind spec.ImageKind) (*os.File, error) {
	image, err := s.image(id)
	if err != nil {
		return nil, err
	}
	if image.Kind != kind {
		return nil, qverr.New(qverr.Config, "image %s is of kind %s, not %s", id, image.Kind, kind)
	}
	f, err := os.Open(s.path(KindImage, id))
	if err != nil {
		return nil, qverr.New(qverr.StrOpen, "image %s: %w", id, err)
	}
	return f, nil
}

// OpenDisk opens and locks a disk: shared when readonly, else exclusive.
// QV_STR_ERR_LOCK when somebody else has it.
func (s *Service) OpenDisk(name string, readonly bool) (*os.File, error) {
	if err := s.HasDisk(name); err != nil {
		return nil, err
	}
	return s.openLocked(s.path(KindDisk, name), readonly)
}

// Origin is the SHA-256 of what was uploaded as a disk, "" if nothing was.
func (s *Service) Origin(disk string) (string, error) {
	d, err := s.disk(disk)
	return d.Sha256, err
}

// OpenPath opens and locks a file below the node's disks or images.
func (s *Service) OpenPath(path string, readonly bool) (*os.File, error) {
	clean, err := s.CheckPath(path)
	if err != nil {
		return nil, err
	}
	return s.openLocked(clean, readonly)
}

// CheckPath accepts only files in the node's own folders: the daemon opens as
// root what the VM then has.
func (s *Service) CheckPath(path string) (string, error) {
	clean := filepath.Clean(path)
	dir, base := filepath.Split(clean)
	dir = filepath.Clean(dir)
	if dir != s.folder(KindDisk) && dir != s.folder(KindImage) || strings.HasPrefix(base, ".") {
		return "", qverr.New(qverr.Config, "path %.128q is not a file in %s or %s", path, s.folder(KindDisk), s.folder(KindImage))
	}
	info, err := os.Lstat(clean)
	if err != nil {
		return "", qverr.New(qverr.NoEnt, "disk file: %w", err)
	}
	if !info.Mode().IsRegular() {
		return "", qverr.New(qverr.Config, "path %.128q is no regular file", path)
	}
	return clean, nil
}

func (s *Service) openLocked(path string, readonly bool) (*os.File, error) {
	flags, lock := unix.O_RDWR, unix.LOCK_EX
	if readonly {
		flags, lock = unix.O_RDONLY, unix.LOCK_SH
	}
	f, err := os.OpenFile(path, flags|unix.O_NOFOLLOW, 0)
	if err != nil {
		return nil, qverr.New(qverr.StrOpen, "disk file: %w", err)
	}
	if err := flock(f, lock|unix.LOCK_NB); err != nil {
		_ = f.Close()
		if err == unix.EWOULDBLOCK {
			return nil, qverr.New(qverr.StrLock, "disk file %s is locked", path)
		}
		return nil, qverr.New(qverr.StrIO, "lock %s: %w", path, err)
	}
	return f, nil
}

func flock(f *os.File, how int) error {
	raw, err := f.SyscallConn()
	if err != nil {
		return err
	}
	var lockErr error
	if err := raw.Control(func(fd uintptr) { lockErr = unix.Flock(int(fd), how) }); err != nil {
		return err
	}
	return lockErr
}

// Path is where an object lies.
func (s *Service) Path(kind Kind, name string) string { return s.path(kind, name) }
