package disklayout

import (
	_ "embed"
	"fmt"
	"io"
	"path"
	"slices"
	"strings"

	"quantavirt/internal/fat32"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
)

// Paths on the EFI system partition.
const (
	PathBoot      = "EFI/systemd/systemd-bootx64.efi"
	pathRemovable = "EFI/BOOT/BOOTX64.EFI" // the same, for firmware that has no boot entry
	pathLoader    = "loader/loader.conf"
	pathGRUB      = "grub/grub.cfg"
)

// loaderConf is that of systemd-boot: no menu unless a key is held, and no
// changed command lines.
const loaderConf = "timeout 0\neditor no\n"

//go:embed grub.cfg
var grubConf []byte

// GRUBPrefix is where the core image finds grub.cfg: on the second partition of
// the disk that it was started from.
const GRUBPrefix = "(,gpt2)/grub"

// GRUBDisc is the variable by which the core image of a disc tells grub.cfg that
// there are no slots to count and no partition for the kernel to find.
const GRUBDisc = "qv_disc"

// GRUBModules are those that grub.cfg needs; they are part of the core image.
var GRUBModules = []string{"biosdisk", "part_gpt", "fat", "normal", "linux", "loadenv", "test", "echo", "probe", "regexp", "serial",
	"terminal", "reboot", "sleep"}

// Slot is a system for a new EFI system partition.
type Slot struct {
	slot.Info             // its slot.json
	UKI       io.ReaderAt // unified kernel image
	Size      int64       // of UKI, in bytes
}

// BootFiles are the files of boot loaders and slots, with slot boot as the one
// that BIOS starts. UEFI starts the one with the largest number.
func BootFiles(systemdBoot []byte, boot uint32, slots ...Slot) ([]fat32.File, error) {
	if len(systemdBoot) == 0 {
		return nil, qverr.New(qverr.Inval, "disklayout: systemd-boot is empty")
	}
	var env slot.Env
	env.Bless(boot)
	environment, err := env.Encode()
	if err != nil {
		return nil, fmt.Errorf("disklayout: %w", err)
	}
	files := []fat32.File{
		fat32.Bytes(pathRemovable, systemdBoot),
		fat32.Bytes(PathBoot, systemdBoot),
		fat32.Bytes(pathLoader, []byte(loaderConf)),
		fat32.Bytes(pathGRUB, grubConf),
		fat32.Bytes(slot.EnvFile, environment),
	}
	for _, s := range slots {
		more, err := s.files()
		if err != nil {
			return nil, fmt.Errorf("disklayout: slot %d: %w", s.Sequence, err)
		}
		files = append(files, more...)
	}
	if !slices.ContainsFunc(slots, func(s Slot) bool { return s.Sequence == boot }) {
		return nil, qverr.New(qverr.Inval, "disklayout: slot %d is to be booted, but is none of those given", boot)
	}
	return files, nil
}

// files are the UKI for UEFI, and its parts for GRUB.
func (s Slot) files() ([]fat32.File, error) {
	if s.Sequence < 1 || s.Sequence > slot.MaxSequence {
		return nil, qverr.New(qverr.Inval, "want a number from 1 to %d", slot.MaxSequence)
	}
	parts, err := s.Parts()
	if err != nil {
		return nil, err
	}
	state, err := s.Encode()
	if err != nil {
		return nil, err
	}
	name := slot.Name{Sequence: s.Sequence}.String()
	uki := fat32.File{Name: path.Join(slot.UKIFolder, name), Size: s.Size, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(s.UKI, 0, s.Size)), nil
	}}
	return append([]fat32.File{uki, fat32.Bytes(s.path(slot.InfoFile), state)}, parts...), nil
}

// path of a file in the slot's folder.
func (s Slot) path(name string) string { return path.Join(slot.Folder, slot.Digits(s.Sequence), name) }

// Parts are the files that GRUB loads: kernel, initramfs and command line.
func (s Slot) Parts() ([]fat32.File, error) {
	uki, err := ukifile.Open(s.UKI, s.Size)
	if err != nil {
		return nil, err
	}
	kernel, err := uki.Kernel()
	if err != nil {
		return nil, err
	}
	line, err := uki.Text(ukifile.Cmdline)
	if err != nil {
		return nil, err
	}
	cmdline, err := GRUBCmdline(line)
	if err != nil {
		return nil, err
	}
	return []fat32.File{
		{Name: s.path(slot.Kernel), Size: kernel.Size(), Open: func() (io.ReadCloser, error) {
			again, err := uki.Kernel()
			return io.NopCloser(again), err
		}},
		{Name: s.path(slot.Initramfs), Size: uki.InitrdSize(), Open: func() (io.ReadCloser, error) {
			initrd, err := uki.Initrd()
			return io.NopCloser(initrd), err
		}},
		fat32.Bytes(s.path(slot.Cmdline), cmdline),
	}, nil
}

// GRUBCmdline is the file qv/NNNNNNNN/cmdline: a command line in the only form
// in which GRUB reads a file into a variable, an environment block (GRUB manual,
// "The GRUB environment block"): a header, name=value with a backslash before
// each backslash, and '#' up to the end. GRUB splits the line at white space; it
// must not hold line breaks.
func GRUBCmdline(line string) ([]byte, error) {
	if strings.ContainsAny(line, "\n\r\x00") {
		return nil, qverr.New(qverr.Inval, "disklayout: a command line with line breaks: %q", line)
	}
	text := "# GRUB Environment Block\ncmdline=" + strings.ReplaceAll(line, `\`, `\\`) + "\n"
	return append([]byte(text), strings.Repeat("#", -len(text)&(slot.EnvSize-1))...), nil
}
