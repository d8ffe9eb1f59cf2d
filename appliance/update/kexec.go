package update

import (
	"context"
	"errors"
	"io"
	"os"
	"slices"
	"strings"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/task"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// startDirectly loads the new kernel and has PID 1 start it in the end. seq is
// the slot that it lies in, nil for none.
func (s *Service) startDirectly(ctx context.Context, img *image, seq *uint32, p *task.Progress) error {
	p.Phase("load")
	if s.Init == nil {
		return qverr.New(qverr.Unsupported, "start the new system: this daemon runs without QuantaVirt's PID 1")
	}
	kernel, err := inMemory("kernel", io.NewSectionReader(img.kernel, 0, img.kernel.Size()))
	if err != nil {
		return err
	}
	defer func() { _ = kernel.Close() }()
	initrd, err := img.uki.Initrd()
	if err != nil {
		return err
	}
	initramfs, err := inMemory("initramfs", initrd)
	if err != nil {
		return err
	}
	defer func() { _ = initramfs.Close() }()
	running, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return qverr.New(qverr.IO, "read the kernel command line: %w", err)
	}
	s.mu.Lock()
	partition := s.boot.ESPPartUUID
	s.mu.Unlock()
	line := nextCmdline(img.cmdline, string(running), seq, partition)
	if err := s.LoadKernel(kernel, initramfs, line); err != nil {
		return err
	}
	p.Phase("start")
	return s.Init.Kexec(context.WithoutCancel(ctx))
}

// inMemory copies into a file that only this process has.
func inMemory(name string, r io.Reader) (*os.File, error) {
	fd, err := unix.MemfdCreate(name, unix.MFD_CLOEXEC)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "load the new %s: %w", name, err)
	}
	f := os.NewFile(uintptr(fd), name)
	if _, err := io.Copy(f, r); err != nil {
		_ = f.Close()
		return nil, qverr.New(codeOf(err), "load the new %s: %w", name, err)
	}
	return f, nil
}

func loadKernel(kernel, initrd *os.File, cmdline string) error {
	if err := unix.KexecFileLoad(int(kernel.Fd()), int(initrd.Fd()), cmdline, 0); err != nil {
		return notLoaded(err)
	}
	return nil
}

// notLoaded explains an error of kexec_file_load(2). A kernel that is locked down
// answers EPERM to one that is not signed, or not by a key that it trusts
// (kernel/kexec_file.c); one that insists on signatures in any case says what is
// wrong with it. QV_ERR_PERM: that; else what the operating system says.
func notLoaded(err error) error {
	for _, unsigned := range []syscall.Errno{unix.EPERM, unix.ENODATA, unix.ENOKEY, unix.EKEYREJECTED, unix.EBADMSG} {
		if errors.Is(err, unsigned) {
			return qverr.New(qverr.Perm, "the running kernel does not start the new one, which is not signed by a key that it trusts: %w", err).
				WithHint("Secure Boot locks the kernel down: update without --kexec, by a reboot")
		}
	}
	return qverr.New(qverr.CodeOf(err), "load the new kernel: %w", err)
}

// What a boot loader put on the command line for itself, and what names the slot.
// BOOTIF= stays: the node was booted from that card, and will be again.
var loaderWords = []string{"BOOT_IMAGE=", "initrd=", "quantavirt.slot=", "quantavirt.esp=", "quantavirt.try"}

// nextCmdline is the command line of the new system: its own, and what this
// boot's had besides, which is what an operator or a netboot server gave the node.
func nextCmdline(own, running string, seq *uint32, partition string) string {
	words := strings.Fields(own)
	for _, w := range strings.Fields(running) {
		loaders := slices.ContainsFunc(loaderWords, func(p string) bool { return strings.HasPrefix(w, p) })
		if !loaders && !slices.Contains(words, w) {
			words = append(words, w)
		}
	}
	if seq != nil {
		words = append(words, "quantavirt.slot="+slot.Digits(*seq), "quantavirt.esp="+partition, "quantavirt.try")
	}
	return strings.Join(words, " ")
}
