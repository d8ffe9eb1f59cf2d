// Package medium opens the file system that the node was booted from, the EFI
// system partition of a disk or an ISO, for as long as somebody needs it.
package medium

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/internal/disks"
	"quantavirt/internal/qverr"
)

// mounting lets one at a time have a device: the kernel refuses to mount it
// read-only and writable at once.
var mounting sync.Mutex

// runDir and prefix tell where it is mounted.
const (
	runDir = "/run/quantavirt"
	prefix = "medium-"
)

// safe: nothing there is a program or a device.
const safe = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// With mounts a device below /run/quantavirt, calls use with the directory and
// unmounts it again; with write it is flushed then. A FAT on which a power cut left
// changes half done is repaired before: the kernel cannot read all of it, and would
// make it read-only at the first write. QV_STR_ERR_FORMAT: it holds neither FAT nor
// ISO 9660.
func With(device string, write bool, use func(dir string) error) (err error) {
	kind, err := fileSystem(device)
	if err != nil {
		return err
	}
	mounting.Lock()
	defer mounting.Unlock()
	release(runDir)
	if kind == "vfat" {
		unrepaired := Repair(context.Background(), checker, device)
		if unrepaired != nil && write {
			return unrepaired
		}
		defer func() { // it may still be readable; if it is not, this is why
			if err != nil {
				err = errors.Join(err, unrepaired)
			}
		}()
	}
	dir, err := os.MkdirTemp(runDir, prefix)
	if err != nil {
		return qverr.New(qverr.IO, "mount %s: %w", device, err)
	}
	defer func() { err = errors.Join(err, os.Remove(dir)) }()
	flags, options := uintptr(safe), ""
	if !write {
		flags |= unix.MS_RDONLY
	}
	if kind == "vfat" {
		options = "fmask=0077,dmask=0077,codepage=437,iocharset=ascii"
	}
	if err := unix.Mount(device, dir, kind, flags, options); err != nil {
		return qverr.New(qverr.StrOpen, "mount %s as %s: %w", device, kind, err)
	}
	defer func() {
		if unmountErr := unix.Unmount(dir, 0); unmountErr != nil {
			err = errors.Join(err, qverr.New(qverr.IO, "unmount %s: %w", device, unmountErr), unix.Unmount(dir, unix.MNT_DETACH))
		}
	}()
	return use(dir)
}

// release unmounts what a process that was killed left mounted: read-only, it
// would keep the device from being mounted writable. The caller holds mounting, so
// none of this is in use.
func release(in string) {
	left, _ := filepath.Glob(filepath.Join(in, prefix+"*")) // a pattern that is right
	for _, dir := range left {
		if err := unix.Unmount(dir, unix.MNT_DETACH); err == nil || errors.Is(err, unix.EINVAL) {
			_ = os.Remove(dir)
		}
	}
}

func fileSystem(device string) (string, error) {
	f, err := os.Open(device)
	if err != nil {
		return "", qverr.New(qverr.CodeOf(err), "boot medium: %w", err)
	}
	defer func() { _ = f.Close() }()
	fs, ok, err := disks.Identify(f)
	switch {
	case err != nil:
		return "", qverr.New(qverr.StrIO, "boot medium %s: %w", device, err)
	case !ok || fs.Type != "vfat" && fs.Type != "iso9660":
		return "", qverr.New(qverr.StrFormat, "the boot medium %s holds neither FAT nor ISO 9660", device)
	}
	return fs.Type, nil
}
