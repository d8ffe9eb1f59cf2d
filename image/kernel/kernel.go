package kernel

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
)

// ErrNoModule is returned for a name that is neither a module nor built in.
var ErrNoModule = errors.New("no such kernel module")

// Kernel is a boot image and the modules built with it.
type Kernel struct {
	Image   string // path of the bzImage
	Modules string // path of the directory that holds kernel/, modules.dep and so on
	Release string // as uname -r reports it
}

// Find looks below root for the kernel whose release match accepts. Debian's
// packages put the image at boot/vmlinuz-RELEASE and the modules at
// usr/lib/modules/RELEASE. With several, the last in name order is taken.
func Find(root string, match func(release string) bool) (Kernel, error) {
	images, err := filepath.Glob(filepath.Join(root, "boot", "vmlinuz-*"))
	if err != nil {
		return Kernel{}, err
	}
	var found Kernel
	for _, image := range images {
		release := strings.TrimPrefix(filepath.Base(image), "vmlinuz-")
		if match(release) {
			found = Kernel{Image: image, Modules: filepath.Join(root, "usr", "lib", "modules", release), Release: release}
		}
	}
	if found.Image == "" {
		return Kernel{}, fmt.Errorf("kernel: no matching boot/vmlinuz-* below %s: %w", root, fs.ErrNotExist)
	}
	if _, err := os.Stat(found.Modules); err != nil {
		return Kernel{}, fmt.Errorf("kernel: modules of %s: %w", found.Release, err)
	}
	return found, nil
}

// Canonical is the form of a module's name that the kernel itself uses.
func Canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// moduleName is the name that belongs to a path in modules.dep.
func moduleName(file string) string {
	name, _, _ := strings.Cut(path.Base(file), ".ko")
	return Canonical(name)
}

// eachLine calls f for every line of a file, without its end.
func eachLine(name string, f func(line string) error) error {
	in, err := os.Open(name)
	if err != nil {
		return err
	}
	defer in.Close()
	s := bufio.NewScanner(in)
	s.Buffer(nil, 1<<20)
	for s.Scan() {
		if err := f(s.Text()); err != nil {
			return fmt.Errorf("%s: %w", name, err)
		}
	}
	if err := s.Err(); err != nil {
		return fmt.Errorf("%s: %w", name, err)
	}
	return nil
}
