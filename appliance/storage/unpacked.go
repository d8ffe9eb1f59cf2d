package storage

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"quantavirt/internal/qverr"
)

// unpackedFolder is in the folder of images, where no image can have its name.
const unpackedFolder = ".unpacked"

// unpackedPath is where the unpacked form of a kernel lies, if it has one.
func (s *Service) unpackedPath(id string) string {
	return filepath.Join(s.folder(KindImage), unpackedFolder, id)
}

// unpack stores the unpacked form of a kernel that is being uploaded, and tells
// whether it did: guests then start in half the time. It is worth having, not
// needed: without it, for lack of space as well, a kernel unpacks itself in each
// guest.
func (s *Service) unpack(id string, kernel io.ReaderAt) bool {
	err := s.tryUnpack(id, kernel)
	switch {
	case err == nil:
		return true
	case errors.Is(err, qverr.Unsupported):
		s.Log.Info("kernel "+id+" is started as it is", "why", err.Error())
	default:
		s.Log.Warn("kernel "+id+" is not stored unpacked and will unpack itself", "err", err)
	}
	return false
}

func (s *Service) tryUnpack(id string, kernel io.ReaderAt) (err error) {
	size, err := s.Kernels.UnpackedSize(kernel)
	if err != nil {
		return err
	}
	if err := s.reserve(size); err != nil {
		return err
	}
	defer s.used(size)
	path := s.unpackedPath(id)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return qverr.New(qverr.StrIO, "unpack kernel %s: %w", id, err)
	}
	f, err := os.CreateTemp(filepath.Dir(path), tempPrefix+"*")
	if err != nil {
		return qverr.New(qverr.StrIO, "unpack kernel %s: %w", id, err)
	}
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(f.Name())
		}
	}()
	if err := s.Kernels.Unpack(kernel, &sparse{f: f}); err != nil {
		return err
	}
	if err := finish(f, size); err != nil {
		return qverr.New(qverr.StrIO, "unpack kernel %s: %w", id, err)
	}
	if err := s.Kernels.CheckUnpacked(f, size); err != nil {
		return err
	}
	if err := os.Rename(f.Name(), path); err != nil {
		return qverr.New(qverr.StrIO, "unpack kernel %s: %w", id, err)
	}
	return nil
}

// reserve takes space that used gives back.
func (s *Service) reserve(size int64) error {
	limit := s.ramLimit()
	s.mu.Lock()
	defer s.mu.Unlock()
	free, err := s.free(limit)
	if err != nil {
		return err
	}
	if size > free {
		return qverr.New(qverr.NoSpc, "%d bytes are needed, %d are free", size, free)
	}
	s.reserved += size
	return nil
}

// OpenUnpacked opens the unpacked form of a kernel; nil when it has none.
func (s *Service) OpenUnpacked(id string) (*os.File, error) {
	f, err := os.Open(s.unpackedPath(id))
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.StrOpen, "unpacked form of image %s: %w", id, err)
	}
	return f, nil
}

func (s *Service) removeUnpacked(id string) {
	if err := os.Remove(s.unpackedPath(id)); err != nil && !errors.Is(err, fs.ErrNotExist) {
		s.Log.Warn("delete the unpacked form of image "+id, "err", qverr.New(qverr.StrIO, "%w", err))
	}
}

// cleanUnpacked removes what no image has any more, and what an interruption left.
func (s *Service) cleanUnpacked() {
	entries, err := os.ReadDir(filepath.Dir(s.unpackedPath("x")))
	if err != nil {
		return // there is no such folder yet
	}
	for _, e := range entries {
		if _, ok := s.images[e.Name()]; !ok {
			s.removeUnpacked(e.Name())
		}
	}
}

// sparse writes to a file and leaves out blocks of zeroes.
type sparse struct {
	f   *os.File
	off int64
}

func (s *sparse) Write(p []byte) (int, error) {
	err := writeSparse(s.f, p, s.off)
	if err != nil {
		return 0, err
	}
	s.off += int64(len(p))
	return len(p), nil
}
