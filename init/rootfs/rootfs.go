// Package rootfs leaves the kernel's first root and checks that the initramfs
// was unpacked completely.
//
// The kernel unpacks the initramfs into rootfs, a mount without a parent, and
// pivot_root(2), which jails need, refuses such a root. rootfs is itself a
// tmpfs unless root= is on the command line, so Leave mounts the same file
// system a second time over it and goes there: nothing is copied, no memory is
// used twice. Only a ramfs, which has no bound, is moved file by file into a
// tmpfs.
package rootfs

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

const (
	// staging is where the new root is mounted before it goes to /.
	staging = "/.root"

	ramfsMagic = 0x858458f6 // RAMFS_MAGIC, linux/magic.h
)

// Leave makes a tmpfs that is not rootfs the root of this process, its threads
// and the kernel's. It must come before any other mount. moved says that the
// files had to be copied.
func Leave() (moved bool, err error) {
	var st unix.Statfs_t
	if err := unix.Statfs("/", &st); err != nil {
		return false, qverr.New(qverr.IO, "look at the root file system: %w", err)
	}
	if err := os.Mkdir(staging, 0o755); err != nil && !errors.Is(err, fs.ErrExist) {
		return false, qverr.New(qverr.IO, "leave the initramfs: %w", err)
	}
	if st.Type == ramfsMagic {
		if err := unix.Mount("root", staging, "tmpfs", 0, "mode=0755"); err != nil {
			return false, qverr.New(qverr.IO, "mount a root: %w", err)
		}
		if err := Move("/", staging); err != nil {
			return false, err
		}
		moved = true
	} else if err := unix.Mount("/", staging, "", unix.MS_BIND, ""); err != nil {
		return false, qverr.New(qverr.IO, "mount the root a second time: %w", err)
	}
	return moved, enter()
}

// enter puts the mount at staging over / and goes there.
func enter() error {
	if err := os.Chdir(staging); err != nil {
		return qverr.New(qverr.IO, "enter the new root: %w", err)
	}
	if err := unix.Mount(".", "/", "", unix.MS_MOVE, ""); err != nil {
		return qverr.New(qverr.IO, "move the new root to /: %w", err)
	}
	// The kernel's threads share this process's root, so that they follow.
	if err := unix.Chroot("."); err != nil {
		return qverr.New(qverr.IO, "change to the new root: %w", err)
	}
	if err := os.Chdir("/"); err != nil {
		return qverr.New(qverr.IO, "enter the new root: %w", err)
	}
	if err := os.Remove(staging); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.IO, "tidy the new root: %w", err)
	}
	return nil
}

// Move moves the files of one file system to another, each freed before the
// next is copied. It stays on the file system of from and leaves out the
// directory to. Hard links become files of their own.
func Move(from, to string) error {
	var dev unix.Stat_t
	if err := unix.Lstat(from, &dev); err != nil {
		return qverr.New(qverr.IO, "move %s: %w", from, err)
	}
	if err := moveDir(from, to, to, dev.Dev); err != nil {
		return qverr.New(qverr.CodeOf(err), "move %s to %s: %w", from, to, err)
	}
	return nil
}

func moveDir(from, to, except string, dev uint64) error {
	entries, err := os.ReadDir(from)
	if err != nil {
		return err
	}
	for _, e := range entries {
		src, dst := filepath.Join(from, e.Name()), filepath.Join(to, e.Name())
		if src == except {
			continue
		}
		var st unix.Stat_t
		if err := unix.Lstat(src, &st); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
		if st.Dev != dev {
			continue
		}
		if err := moveEntry(src, dst, except, st); err != nil {
			return fmt.Errorf("%s: %w", src, err)
		}
	}
	return nil
}

func moveEntry(src, dst, except string, st unix.Stat_t) error {
	var err error
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFDIR:
		if err = os.Mkdir(dst, 0o755); err == nil {
			err = moveDir(src, dst, except, st.Dev)
		}
	case unix.S_IFLNK:
		var target string
		if target, err = os.Readlink(src); err == nil {
			err = os.Symlink(target, dst)
		}
	case unix.S_IFREG:
		err = copyFile(src, dst)
	default:
		err = unix.Mknod(dst, st.Mode, int(st.Rdev))
	}
	if err != nil {
		return err
	}
	if err := os.Lchown(dst, int(st.Uid), int(st.Gid)); err != nil {
		return err
	}
	if st.Mode&unix.S_IFMT != unix.S_IFLNK {
		if err := unix.Chmod(dst, st.Mode&0o7777); err != nil {
			return err
		}
	}
	return os.Remove(src)
}

func copyFile(src, dst string) error {
	in, err := os.Open(src)
	if err != nil {
		return err
	}
	defer func() { _ = in.Close() }()
	out, err := os.OpenFile(dst, os.O_CREATE|os.O_EXCL|os.O_WRONLY, 0o600)
	if err != nil {
		return err
	}
	_, err = io.Copy(out, in)
	return errors.Join(err, out.Close())
}

// Image is what the image says about itself.
type Image struct {
	ID      string `json:"id"`
	Version string `json:"version"`
	Build   string `json:"build"`
	Kernel  string `json:"kernel"` // release
}

// Check reads the image's description below root and compares its id with the
// sentinel, the last entry of the archive. Where RAM did not hold the archive, or
// the archive was cut, the kernel leaves files out and boots on: QV_ERR_IO.
func Check(root, release string) (Image, error) {
	var image Image
	data, err := os.ReadFile(filepath.Join(root, "etc/quantavirt/image.json"))
	if err != nil {
		return image, incomplete("its description is missing: %w", err)
	}
	if err := json.Unmarshal(data, &image); err != nil {
		return image, incomplete("its description is damaged: %w", err)
	}
	sentinel, err := os.ReadFile(filepath.Join(root, ".image-complete"))
	if err != nil {
		return image, incomplete("its last entry is missing: %w", err)
	}
	if got := strings.TrimSpace(string(sentinel)); got != image.ID || got == "" {
		return image, incomplete("its last entry says %.40q, its description %.40q", got, image.ID)
	}
	if image.Kernel != release {
		return image, qverr.New(qverr.Version, "the image is made for kernel %s, but %s runs: its modules will not load", image.Kernel, release).
			WithHint("boot the kernel and the initramfs of the same image")
	}
	return image, nil
}

func incomplete(format string, args ...any) error {
	return qverr.New(qverr.IO, "the image is incomplete: "+format, args...).
		WithHint("give the node more memory, or load the image again: it was cut on its way")
}
