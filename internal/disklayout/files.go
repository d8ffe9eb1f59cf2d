package disklayout

import (
	_ "embed"
	"fmt"
	"io"
	"slices"
	"strings"

	"quantavirt/internal/fat32"
	"quantavirt/internal/ukifile"
)

// Paths on the EFI system partition.
const (
	pathRemovable = "EFI/BOOT/BOOTX64.EFI"
	pathBoot      = "EFI/systemd/systemd-bootx64.efi"
	pathLoader    = "loader/loader.conf"
	pathGRUB      = "grub/grub.cfg"
	pathEnv       = "grub/grubenv"
)

// loaderConf is that of systemd-boot: no menu unless a key is held, and no
// changed command lines.
const loaderConf = "timeout 0\neditor no\n"

//go:embed grub.cfg
var grubConf []byte

// GRUBPrefix is where the core image finds grub.cfg: on the second partition of
// the disk that it was started from.
const GRUBPrefix = "(,gpt2)/grub"

// GRUBModules are those that grub.cfg needs; they are part of the core image.
var GRUBModules = []string{"biosdisk", "part_gpt", "fat", "normal", "linux", "loadenv", "test", "echo", "probe", "regexp", "serial",
	"terminal", "reboot", "sleep"}

// MaxSequence is the largest number of a slot.
const MaxSequence = 99_999_999

// Slot is a system for a new EFI system partition.
type Slot struct {
	Sequence int         // 1 to MaxSequence
	UKI      io.ReaderAt // unified kernel image
	Size     int64       // of UKI, in bytes
	State    []byte      // slot.json
}

// BootFiles are the files of boot loaders and slots, with slot boot as the one
// that BIOS starts. UEFI starts the one with the largest number.
func BootFiles(systemdBoot []byte, boot int, slots ...Slot) ([]fat32.File, error) {
	if len(systemdBoot) == 0 {
		return nil, fmt.Errorf("disklayout: systemd-boot is empty")
	}
	environment := fmt.Sprintf("qv_default=%s\nqv_try=\nqv_tries=0\n", number(boot))
	files := []fat32.File{
		fat32.Bytes(pathRemovable, systemdBoot),
		fat32.Bytes(pathBoot, systemdBoot),
		fat32.Bytes(pathLoader, []byte(loaderConf)),
		fat32.Bytes(pathGRUB, grubConf),
		fat32.Bytes(pathEnv, envBlock(environment)),
	}
	for _, s := range slots {
		more, err := s.files()
		if err != nil {
			return nil, fmt.Errorf("disklayout: slot %d: %w", s.Sequence, err)
		}
		files = append(files, more...)
	}
	if !slices.ContainsFunc(slots, func(s Slot) bool { return s.Sequence == boot }) {
		return nil, fmt.Errorf("disklayout: slot %d is to be booted, but is none of those given", boot)
	}
	return files, nil
}

// files are the UKI for UEFI, and its parts for GRUB.
func (s Slot) files() ([]fat32.File, error) {
	if s.Sequence < 1 || s.Sequence > MaxSequence {
		return nil, fmt.Errorf("want a number from 1 to %d", MaxSequence)
	}
	parts, err := s.biosFiles()
	if err != nil {
		return nil, err
	}
	name := number(s.Sequence)
	uki := fat32.File{Name: "EFI/Linux/qv-" + name + ".efi", Size: s.Size, Open: func() (io.ReadCloser, error) {
		return io.NopCloser(io.NewSectionReader(s.UKI, 0, s.Size)), nil
	}}
	return append([]fat32.File{uki, fat32.Bytes("qv/"+name+"/slot.json", s.State)}, parts...), nil
}

func (s Slot) biosFiles() ([]fat32.File, error) {
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
	dir := "qv/" + number(s.Sequence) + "/"
	return []fat32.File{
		{Name: dir + "vmlinuz", Size: kernel.Size(), Open: func() (io.ReadCloser, error) {
			again, err := uki.Kernel()
			return io.NopCloser(again), err
		}},
		{Name: dir + "initramfs", Size: uki.InitrdSize(), Open: func() (io.ReadCloser, error) {
			initrd, err := uki.Initrd()
			return io.NopCloser(initrd), err
		}},
		fat32.Bytes(dir+"cmdline", cmdline),
	}, nil
}

// envSize is the size of GRUB's environment blocks, in bytes, and the largest
// that we write.
const (
	envSize   = 1024
	envHeader = "# GRUB Environment Block\n"
)

// envBlock makes an environment block (GRUB manual, "Environment block") of
// lines name=value: padded with '#' so that GRUB can change it in place.
func envBlock(lines string) []byte {
	text := envHeader + lines
	size := (len(text) + envSize - 1) / envSize * envSize
	return append([]byte(text), strings.Repeat("#", size-len(text))...)
}

// GRUBCmdline is the file qv/NNNNNNNN/cmdline: a command line in the only form
// in which GRUB reads a file into a variable, an environment block. In it a
// backslash stands before a backslash. GRUB splits the line at white space; it
// must not hold line breaks.
func GRUBCmdline(line string) ([]byte, error) {
	if strings.ContainsAny(line, "\n\r\x00") {
		return nil, fmt.Errorf("disklayout: a command line with line breaks: %q", line)
	}
	return envBlock("cmdline=" + strings.ReplaceAll(line, `\`, `\\`) + "\n"), nil
}

// number is the form that sequence numbers have in names.
func number(sequence int) string { return fmt.Sprintf("%08d", sequence) }
