package image

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"

	"github.com/u-root/mkuimage/cpio"

	"quantavirt/image/microcode"
	"quantavirt/image/tools"
)

// firmwareDir is where the kernel looks, in the image and below usr in Debian's
// packages.
const firmwareDir = "lib/firmware"

// firmwareRecords are the firmware files that modules of the image may ask for,
// as far as the packages have them.
func (b *build) firmwareRecords(a *archive) ([]cpio.Record, error) {
	if b.firmwareRoot == (tools.Root{}) {
		return nil, nil
	}
	files := map[string]cpio.Record{}
	found := 0
	for name := range b.firmware {
		if err := b.addFirmware(files, name, "firmware: "+b.firmware[name], a); err != nil {
			return nil, fmt.Errorf("image: firmware: %w", err)
		}
		if _, ok := files[path.Join(firmwareDir, name)]; ok {
			found++
		}
	}
	var records []cpio.Record
	for _, r := range files {
		records = append(records, r)
	}
	fmt.Fprintf(b.Progress, "    firmware: %d of the %d files that modules name\n", found, len(b.firmware))
	return records, nil
}

// addFirmware adds a file, and what it is a link to. One that no package has is
// passed over: modules name files for every card they ever knew.
func (b *build) addFirmware(files map[string]cpio.Record, name, group string, a *archive) error {
	if !filepath.IsLocal(name) {
		return fmt.Errorf("%q leads out of its directory", name)
	}
	source := b.firmwareRoot.Path("usr", firmwareDir, name)
	info, err := os.Lstat(source)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	in := path.Join(firmwareDir, name)
	if _, ok := files[in]; ok {
		return nil
	}
	if info.Mode()&fs.ModeSymlink != 0 {
		target, err := os.Readlink(source)
		if err != nil {
			return err
		}
		files[in] = cpio.Symlink(in, target)
		return b.addFirmware(files, path.Join(path.Dir(name), target), group, a)
	}
	data, err := os.ReadFile(source)
	if err != nil {
		return err
	}
	files[in] = cpio.StaticFile(in, string(data), 0o644)
	a.groups[in] = group
	return nil
}

// driversFile, beside the image, lists its kernel modules and firmware.
const driversFile = "drivers.txt"

// driverList lists kernel modules and firmware files with their sizes in bytes,
// the largest first.
func driverList(items []item) string {
	sorted := slices.SortedFunc(slices.Values(items), func(a, b item) int {
		return cmp.Or(cmp.Compare(b.size, a.size), cmp.Compare(a.name, b.name))
	})
	var text strings.Builder
	for _, i := range sorted {
		if strings.HasSuffix(i.name, ".ko") || strings.HasPrefix(i.name, firmwareDir+"/") {
			fmt.Fprintf(&text, "%9d %s\n", i.size, i.name)
		}
	}
	return text.String()
}

// PrintDrivers prints the list of kernel modules and firmware with their sizes.
func (i Image) PrintDrivers(w io.Writer) error {
	list, err := os.ReadFile(filepath.Join(i.Dir, driversFile))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	_, err = w.Write(list)
	return err
}

// microcodePatterns are the files of Debian's packages, below usr/lib/firmware.
var microcodePatterns = [2]string{"intel-ucode/*", "amd-ucode/*.bin"}

// packMicrocode makes the archive of processor microcode.
func (b *build) packMicrocode() error {
	var vendors [2][][]byte
	for i, pattern := range microcodePatterns {
		names, err := filepath.Glob(b.firmwareRoot.Path("usr", firmwareDir, pattern))
		if err != nil {
			return err
		}
		if len(names) == 0 {
			return fmt.Errorf("image: microcode: no %s in %s: %w", pattern, b.firmwareRoot.Dir, fs.ErrNotExist)
		}
		slices.Sort(names)
		for _, name := range names {
			data, err := os.ReadFile(name)
			if err != nil {
				return fmt.Errorf("image: microcode: %w", err)
			}
			vendors[i] = append(vendors[i], data)
			b.microcodeFiles = append(b.microcodeFiles, name)
		}
	}
	var err error
	if b.microcode, err = microcode.Archive(vendors[0], vendors[1]); err != nil {
		return fmt.Errorf("image: %w", err)
	}
	return nil
}
