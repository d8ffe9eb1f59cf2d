package image

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"os"
	"path"
	"path/filepath"

	"github.com/u-root/mkuimage/cpio"

	"quantavirt/image/grub"
	"quantavirt/image/tools"
)

// foreign are Debian's programs in the image, by the package that they belong
// to: there is no ext4 maker in Go, nor a checker of ext4 or FAT. They are linked
// dynamically; what they need comes with them.
// The first one counts for a library that several need.
var foreign = []struct {
	of    string
	names []string
}{
	{"e2fsprogs", []string{"mke2fs", "e2fsck"}},
	{"dosfstools", []string{"fsck.fat"}},
}

// Where the dynamic loader looks: its own path, and that of its libraries.
const (
	loaderPath = "lib64/ld-linux-x86-64.so.2"
	libraryDir = "lib/x86_64-linux-gnu"
)

// foreignRecords returns Debian's programs and their libraries, and the group of
// each in the table of sizes.
func foreignRecords(root tools.Root) (records []cpio.Record, groups map[string]string, err error) {
	records = []cpio.Record{cpio.Directory("lib64", 0o755), cpio.Directory(libraryDir, 0o755), cpio.Directory("sbin", 0o755)}
	groups = map[string]string{}
	for _, f := range foreign {
		group := f.of
		var pending []string // paths in the image
		for _, name := range f.names {
			pending = append(pending, path.Join("sbin", name))
		}
		for len(pending) > 0 {
			name := pending[0]
			pending = pending[1:]
			if _, have := groups[name]; have {
				continue
			}
			data, needs, err := foreignFile(root, name)
			if err != nil {
				return nil, nil, fmt.Errorf("image: %s: %w", group, err)
			}
			records = append(records, cpio.StaticFile(name, string(data), 0o755))
			groups[name] = group
			pending = append(pending, needs...)
		}
	}
	return records, groups, nil
}

// foreignFile reads a program or library and tells what it needs.
func foreignFile(root tools.Root, name string) (data []byte, needs []string, err error) {
	dirs := []string{"usr/sbin", "usr/bin", "usr/" + libraryDir}
	if name == loaderPath {
		dirs = []string{"usr/lib64", "usr/" + libraryDir}
	}
	file := ""
	for _, dir := range dirs {
		full := root.Path(dir, path.Base(name))
		if info, err := os.Stat(full); err == nil && info.Mode().IsRegular() {
			file = full
			break
		}
	}
	if file == "" {
		return nil, nil, fmt.Errorf("the root of Debian packages has no %s: %w", path.Base(name), os.ErrNotExist)
	}
	if data, err = os.ReadFile(file); err != nil {
		return nil, nil, err
	}
	f, err := elf.Open(file)
	if err != nil {
		return nil, nil, fmt.Errorf("%s: %w", filepath.Base(file), err)
	}
	defer f.Close()
	libraries, err := f.ImportedLibraries()
	for _, l := range libraries {
		if l == path.Base(loaderPath) {
			needs = append(needs, loaderPath)
		} else {
			needs = append(needs, path.Join(libraryDir, l))
		}
	}
	if f.Section(".interp") != nil {
		needs = append(needs, loaderPath)
	}
	return data, needs, err
}

// bootDir is where the image keeps the boot loaders for a disk that it is
// installed on (package appliance/install reads them).
const bootDir = "lib/quantavirt/boot"

// loaderRecords returns systemd-boot for UEFI, signed like that of the media, and
// GRUB for BIOS.
func loaderRecords(ctx context.Context, root tools.Root, signer Signer) (records []cpio.Record, groups map[string]string, err error) {
	systemdBoot, err := os.ReadFile(efiProgram(root, LoaderFile))
	if err == nil {
		systemdBoot, err = signer.Sign(systemdBoot)
	}
	bios, grubErr := grub.BIOS(ctx, root)
	if err := errors.Join(err, grubErr); err != nil {
		return nil, nil, fmt.Errorf("image: boot loaders: %w", err)
	}
	records = []cpio.Record{cpio.Directory(path.Dir(bootDir), 0o755), cpio.Directory(bootDir, 0o755)}
	groups = map[string]string{}
	for name, data := range map[string][]byte{LoaderFile: systemdBoot, "boot.img": bios.Boot, "core.img": bios.Core} {
		name = path.Join(bootDir, name)
		records = append(records, cpio.StaticFile(name, string(data), 0o644))
		groups[name] = "boot loaders"
	}
	return records, groups, nil
}
