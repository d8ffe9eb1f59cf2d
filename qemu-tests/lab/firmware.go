package lab

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/image/tools"
)

// Firmwares of a node.
const (
	FirmwareDirect = ""            // QEMU loads the kernel by itself
	FirmwareUEFI   = "ovmf"        // OVMF without Secure Boot
	FirmwareSecure = "ovmf-secure" // OVMF with Secure Boot, whose variables only SMM may write
)

// firmware is the program of each kind in Debian's package ovmf.
var firmware = map[string]string{
	FirmwareUEFI:   "OVMF_CODE_4M.fd",
	FirmwareSecure: "OVMF_CODE_4M.secboot.fd",
}

// emptyVariables is OVMF's store of variables as it comes.
const emptyVariables = "OVMF_VARS_4M.fd"

func (o *Options) completeFirmware() error {
	_, uefi := firmware[o.Firmware]
	if !uefi && o.Firmware != FirmwareDirect && o.Firmware != FirmwareBIOS {
		return fmt.Errorf("lab: unknown firmware %q: want %s, %s or %s", o.Firmware, FirmwareBIOS, FirmwareUEFI, FirmwareSecure)
	}
	if !uefi && (o.ESP != "" || o.Variables != "") {
		return errors.New("lab: an ESP or UEFI variables need a UEFI firmware")
	}
	if o.Netboot != nil && (o.Outside || o.ESP != "" || o.Medium.File != "" || o.Archive != "" || o.Cmdline != "") {
		return errors.New("lab: a node that boots from the network has one card and gets all else from there")
	}
	if o.ESP != "" && o.Archive != "" {
		return errors.New("lab: an archive cannot be added to the image of an ESP")
	}
	return nil
}

// prepareFirmware gives the node its own UEFI variables and a clean TPM, and
// returns the firmware's program.
func (n *Node) prepareFirmware(o Options, root tools.Root) (program string, err error) {
	if o.TPM && !o.KeepData {
		if err := os.RemoveAll(n.tpmState()); err != nil {
			return "", fmt.Errorf("lab: %w", err)
		}
	}
	if _, uefi := firmware[o.Firmware]; !uefi {
		return "", nil
	}
	dir := root.Path("usr", "share", "OVMF")
	variables := filepath.Join(n.Dir, variablesFile)
	if _, err := os.Stat(variables); err != nil || !o.KeepData {
		from := o.Variables
		if from == "" {
			from = filepath.Join(dir, emptyVariables)
		}
		data, err := os.ReadFile(from)
		if err != nil {
			return "", fmt.Errorf("lab: %w", err)
		}
		if err := os.WriteFile(variables, data, 0o644); err != nil {
			return "", fmt.Errorf("lab: %w", err)
		}
	}
	return filepath.Join(dir, firmware[o.Firmware]), nil
}

// variablesFile is the node's own store of UEFI variables.
const variablesFile = "variables.fd"

// machineOptions are added to those of the machine type.
func (l launch) machineOptions() string {
	switch {
	case l.opts.Firmware == FirmwareSecure:
		return ",smm=on"
	case l.opts.Netboot != nil:
		return ",graphics=off" // SeaBIOS and iPXE then speak on the serial port
	}
	return ""
}

// firmwareArgs are the firmware, what it boots, and the TPM that it measures into.
func (l launch) firmwareArgs() []string {
	var a []string
	if l.ovmf != "" {
		a = append(a,
			"-drive", "if=pflash,unit=0,format=raw,readonly=on,file="+l.ovmf,
			"-drive", "if=pflash,unit=1,format=raw,file="+l.path(variablesFile))
	}
	if l.opts.Firmware == FirmwareSecure {
		a = append(a, "-global", "driver=cfi.pflash01,property=secure,value=on")
	}
	if l.tpmFD != 0 {
		a = append(a, "-chardev", fmt.Sprintf("socket,id=tpm,fd=%d", l.tpmFD),
			"-tpmdev", "emulator,id=tpm,chardev=tpm", "-device", "tpm-crb,tpmdev=tpm")
	}
	if l.opts.Netboot != nil {
		return a
	}
	if l.opts.ESP == "" && l.opts.Medium.File == "" {
		return append(a, "-kernel", l.kernel, "-initrd", l.initrd, "-append", l.cmdline())
	}
	if l.opts.Medium.File != "" {
		a = append(a, l.mediumArgs()...)
	} else {
		a = append(a,
			"-drive", "if=none,id=esp,format=raw,readonly=on,file=fat:"+escape(l.opts.ESP),
			"-device", "virtio-blk-pci,drive=esp,bootindex=0")
	}
	if words := l.ownWords(); len(words) > 0 {
		// systemd-stub(7), "SMBIOS Type 11 Strings".
		a = append(a, "-smbios", "type=11,value=io.systemd.stub.kernel-cmdline-extra="+escape(strings.Join(words, " ")))
	}
	return a
}

// escape doubles commas, which end an option of QEMU.
func escape(value string) string { return strings.ReplaceAll(value, ",", ",,") }

func (n *Node) tpmState() string { return filepath.Join(n.Dir, "tpm") }

// startTPM starts swtpm and returns QEMU's end of its control channel. It ends
// with QEMU, whose end closes the channel.
func (n *Node) startTPM(root tools.Root) (*os.File, error) {
	if err := os.MkdirAll(n.tpmState(), 0o755); err != nil {
		return nil, fmt.Errorf("lab: %w", err)
	}
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: TPM: %w", err)
	}
	ours, theirs := os.NewFile(uintptr(fds[0]), "tpm"), os.NewFile(uintptr(fds[1]), "swtpm")
	defer theirs.Close()
	log, err := os.Create(filepath.Join(n.Dir, "swtpm.log"))
	if err != nil {
		return nil, errors.Join(err, ours.Close())
	}
	defer log.Close()
	cmd := root.Command("swtpm", "socket", "--tpm2", "--tpmstate", "dir="+n.tpmState()+"/",
		"--ctrl", "type=unixio,clientfd=3", "--terminate")
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = log, log, []*os.File{theirs}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return nil, errors.Join(fmt.Errorf("lab: start swtpm: %w", err), ours.Close())
	}
	n.TPMPID = cmd.Process.Pid
	return ours, nil
}
