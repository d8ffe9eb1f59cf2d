package netboot

import (
	"errors"
	"io/fs"
	"os"
	"strings"

	"quantavirt/internal/qverr"
)

// initramfs names, in the order of preference.
var initramfsNames = []string{"initramfs.zst", "initramfs"}

// programs for UEFI, in the order of preference: the first uses the firmware's
// own driver for the card that it booted from.
var ipxeEFI = []string{"snponly.efi", "ipxe.efi"}

// tree is what is served: regular files below some directories, read-only. A
// name cannot lead out of them, by dots or by symbolic links (os.Root).
type tree struct {
	roots []*os.Root // the first that has a file gives it
}

// openTree opens the directory of the image and, if it is there, one with
// iPXE's programs. Errors carry QV_ERR_NOENT when the image is not whole.
func openTree(dir, ipxe string) (*tree, error) {
	root, err := os.OpenRoot(dir)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "directory of the image: %w", err)
	}
	t := &tree{roots: []*os.Root{root}}
	if t.has(fileKernel) == "" || t.initrds() == nil {
		t.close()
		return nil, qverr.New(qverr.NoEnt, "%s has no %s and %s", dir, fileKernel, initramfsNames[0]).
			WithHint("point --tree to a PXE tree or to build/image/virtual")
	}
	if ipxe == "" {
		return t, nil
	}
	switch more, err := os.OpenRoot(ipxe); {
	case err == nil:
		t.roots = append(t.roots, more)
	case !errors.Is(err, fs.ErrNotExist):
		t.close()
		return nil, qverr.New(qverr.CodeOf(err), "directory of iPXE: %w", err)
	}
	return t, nil
}

func (t *tree) close() {
	for _, r := range t.roots {
		_ = r.Close()
	}
}

// open opens a file by its name in a request, which may begin with a slash. No
// part of it may begin with a dot.
// Errors carry QV_ERR_NOENT.
func (t *tree) open(name string) (*os.File, fs.FileInfo, error) {
	return openIn(t.roots, name)
}

func openIn(roots []*os.Root, name string) (*os.File, fs.FileInfo, error) {
	clean := strings.TrimPrefix(name, "/")
	if !fs.ValidPath(clean) || strings.HasPrefix(clean, ".") || strings.Contains(clean, "/.") {
		return nil, nil, qverr.New(qverr.NoEnt, "no file %q", name)
	}
	for _, r := range roots {
		if f, info, err := openRegular(r, clean); err == nil {
			return f, info, nil
		}
	}
	return nil, nil, qverr.New(qverr.NoEnt, "no file %q", name)
}

// openRegular refuses what is not a regular file before opening it: a FIFO
// would block.
func openRegular(r *os.Root, name string) (*os.File, fs.FileInfo, error) {
	info, err := r.Stat(name)
	if err != nil {
		return nil, nil, err
	}
	if !info.Mode().IsRegular() {
		return nil, nil, fs.ErrInvalid
	}
	f, err := r.Open(name)
	if err != nil {
		return nil, nil, err
	}
	if info, err = f.Stat(); err != nil || !info.Mode().IsRegular() {
		_ = f.Close()
		return nil, nil, errors.Join(err, fs.ErrInvalid)
	}
	return f, info, nil
}

// has returns the name if there is such a file, else "".
func (t *tree) has(name string) string {
	f, _, err := t.open(name)
	if err != nil {
		return ""
	}
	_ = f.Close()
	return name
}

func (t *tree) first(names []string) string {
	for _, n := range names {
		if t.has(n) != "" {
			return n
		}
	}
	return ""
}

// initrds are what the kernel unpacks, in this order: the processor's microcode
// if it is a file of its own, and the initramfs.
func (t *tree) initrds() []string {
	initramfs := t.first(initramfsNames)
	if initramfs == "" {
		return nil
	}
	if m := t.has(fileMicrocode); m != "" {
		return []string{m, initramfs}
	}
	return []string{initramfs}
}

// ipxeEFI is the name of iPXE for UEFI, "" if there is none.
func (t *tree) ipxeEFI() string { return t.first(ipxeEFI) }
