package update

import (
	"errors"
	"io"
	"io/fs"
	"os"
	"path"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/medium"
	"quantavirt/internal/qverr"
)

// Volume is an EFI system partition. FAT keeps no journal: whatever changes
// something returns when it is on the disk, and nothing relies on two changes
// coming together. Names are relative, with slashes.
type Volume interface {
	// List names what a folder holds; nothing if it is not there.
	List(dir string) ([]string, error)
	// Open opens a file for reading; size is in bytes.
	Open(name string) (f ReadAtCloser, size int64, err error)
	// Create makes a file, and the folders that it lies in, and has fill write it.
	// A file that is there is replaced; what fill leaves incomplete is removed.
	Create(name string, fill func(io.Writer) error) error
	// Overwrite writes over a file that has the length of data, in place.
	Overwrite(name string, data []byte) error
	// Rename gives a file another name in its folder; a file of that name goes.
	Rename(from, to string) error
	// Remove removes a file or an empty folder; one that is not there is no error.
	Remove(name string) error
	// Free is the space left, in bytes.
	Free() (int64, error)
}

// ReadAtCloser is an open file.
type ReadAtCloser interface {
	io.ReaderAt
	io.Closer
}

// folder is a Volume on a mounted file system.
type folder struct {
	root *os.Root
	path string
}

var _ Volume = (*folder)(nil)

func openFolder(path string) (*folder, error) {
	root, err := os.OpenRoot(path)
	if err != nil {
		return nil, qverr.New(qverr.IO, "EFI system partition: %w", err)
	}
	return &folder{root: root, path: path}, nil
}

func (f *folder) close() { _ = f.root.Close() }

func failed(what, name string, err error) error {
	if errors.Is(err, unix.ENOSPC) {
		return qverr.New(qverr.NoSpc, "EFI system partition: %s %s: %w", what, name, err)
	}
	if errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.NoEnt, "EFI system partition: %s %s: %w", what, name, err)
	}
	return qverr.New(qverr.IO, "EFI system partition: %s %s: %w", what, name, err)
}

// List implements Volume.
func (f *folder) List(dir string) ([]string, error) {
	d, err := f.root.Open(dir)
	if errors.Is(err, fs.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, failed("list", dir, err)
	}
	defer func() { _ = d.Close() }()
	names, err := d.Readdirnames(-1)
	if err != nil {
		return nil, failed("list", dir, err)
	}
	return names, nil
}

// Open implements Volume.
func (f *folder) Open(name string) (ReadAtCloser, int64, error) {
	file, err := f.root.Open(name)
	if err != nil {
		return nil, 0, failed("open", name, err)
	}
	info, err := file.Stat()
	if err == nil && !info.Mode().IsRegular() {
		err = fs.ErrInvalid
	}
	if err != nil {
		_ = file.Close()
		return nil, 0, failed("open", name, err)
	}
	return file, info.Size(), nil
}

// Create implements Volume.
func (f *folder) Create(name string, fill func(io.Writer) error) (err error) {
	if err := f.makeFolders(path.Dir(name)); err != nil {
		return err
	}
	file, err := f.root.OpenFile(name, os.O_CREATE|os.O_TRUNC|os.O_WRONLY, 0o600)
	if err != nil {
		return failed("make", name, err)
	}
	defer func() {
		if err != nil {
			_ = f.root.Remove(name)
		}
	}()
	if err := fill(file); err != nil {
		_ = file.Close()
		if qverr.CodeOf(err) == qverr.NoSpc {
			return failed("write", name, err)
		}
		return err
	}
	err = file.Sync()
	if err == nil {
		// What is read back comes from the disk, not from memory.
		err = unix.Fadvise(int(file.Fd()), 0, 0, unix.FADV_DONTNEED)
	}
	if err = errors.Join(err, file.Close()); err != nil {
		return failed("write", name, err)
	}
	return f.sync(path.Dir(name))
}

func (f *folder) makeFolders(dir string) error {
	if dir == "." {
		return nil
	}
	if _, err := f.root.Stat(dir); err == nil {
		return nil
	}
	if err := f.makeFolders(path.Dir(dir)); err != nil {
		return err
	}
	if err := f.root.Mkdir(dir, 0o700); err != nil && !errors.Is(err, fs.ErrExist) {
		return failed("make", dir, err)
	}
	return f.sync(path.Dir(dir))
}

// sync brings the disk to rest. Not the folder first: on FAT a new name would then be
// there for a moment with no file behind it, and the old one gone (fs/fat/namei_vfat.c
// enters size and first cluster when the file's inode is written).
func (f *folder) sync(dir string) error {
	d, err := f.root.Open(dir)
	if err != nil {
		return failed("sync", dir, err)
	}
	err = errors.Join(unix.Syncfs(int(d.Fd())), d.Sync(), d.Close())
	if err != nil {
		return failed("sync", dir, err)
	}
	return nil
}

// Overwrite implements Volume.
func (f *folder) Overwrite(name string, data []byte) error {
	file, err := f.root.OpenFile(name, os.O_WRONLY, 0)
	if err != nil {
		return failed("write over", name, err)
	}
	info, err := file.Stat()
	if err == nil && info.Size() != int64(len(data)) {
		err = qverr.New(qverr.Inval, "it has %d bytes, not %d", info.Size(), len(data))
	}
	if err == nil {
		_, err = file.WriteAt(data, 0)
	}
	if err = errors.Join(err, file.Sync(), file.Close()); err != nil {
		return failed("write over", name, err)
	}
	return f.sync(path.Dir(name))
}

// Rename implements Volume.
func (f *folder) Rename(from, to string) error {
	if err := f.root.Rename(from, to); err != nil {
		return failed("rename", from, err)
	}
	// The new name gets its file, and loses the old name beside it, in one write of a
	// sector, as long as nobody else writes that before: see sync.
	file, err := f.root.Open(to)
	if err != nil {
		return failed("rename", from, err)
	}
	if err := errors.Join(file.Sync(), file.Close()); err != nil {
		return failed("rename", from, err)
	}
	return f.sync(path.Dir(to))
}

// Remove implements Volume.
func (f *folder) Remove(name string) error {
	err := f.root.Remove(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return failed("remove", name, err)
	}
	return f.sync(path.Dir(name))
}

// Free implements Volume.
func (f *folder) Free() (int64, error) {
	var st unix.Statfs_t
	if err := unix.Statfs(f.path, &st); err != nil {
		return 0, failed("look at", f.path, err)
	}
	return int64(st.Bavail) * st.Bsize, nil
}

// mounted calls fn with a partition, which is mounted meanwhile.
func mounted(device string, write bool, fn func(Volume) error) error {
	return medium.With(device, write, func(dir string) error {
		v, err := openFolder(dir)
		if err != nil {
			return err
		}
		defer v.close()
		return fn(v)
	})
}
