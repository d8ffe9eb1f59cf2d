package main

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/cmdline"
	"quantavirt/init/console"
	"quantavirt/init/control"
	"quantavirt/init/guard"
	"quantavirt/init/rootfs"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

const rtcDevice = "/dev/rtc0"

// leaveInitramfs must come before anything else is mounted.
func (n *node) leaveInitramfs(context.Context) error {
	moved, err := rootfs.Leave()
	if moved {
		n.log.Warn("the root was a ramfs and was copied; leave root= out of the kernel command line")
	}
	return err
}

// settings of the kernel that PID 1 makes. One that this kernel does not have is
// left out.
var settings = []struct{ file, value, why string }{
	{"/proc/sys/kernel/pid_max", "4194304", "so that the number of a dead VM process is not soon another's"},
	{"/proc/sys/kernel/modprobe", "/init", "the kernel asks for modules by itself: see modprobe.go"},
	{"/proc/sys/kernel/ctrl-alt-del", "0", "Ctrl-Alt-Del is a signal to PID 1"},
	{"/proc/sys/fs/nr_open", "1048576", "as is our limit"},
	// Guest RAM gets them when it is touched. khugepaged, which would move pages about to
	// make more, does not run with the first of these.
	{"/sys/kernel/mm/transparent_hugepage/enabled", "never", "a huge page for a heap is mostly empty"},
	{"/sys/kernel/mm/transparent_hugepage/shmem_enabled", "within_size", "guest RAM has huge pages, and no memfd that is smaller"},
}

// readCommandLine also does what depends on it alone: name, limits, settings.
func (n *node) readCommandLine(context.Context) error {
	text, err := os.ReadFile("/proc/cmdline")
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "read the kernel command line: %w", err)
	}
	line := cmdline.Parse(string(text))
	var u unix.Utsname
	_ = unix.Uname(&u)
	bootID, err := os.ReadFile("/proc/sys/kernel/random/boot_id")
	if err != nil {
		n.log.Error("boot id", "err", err)
	}
	name, nameErr := hostname(line)
	n.mu.Lock()
	n.line = line
	n.boot.Kernel = unix.ByteSliceToString(u.Release[:])
	n.boot.Cmdline = line.Shown()
	n.boot.BootID = strings.TrimSpace(string(bootID))
	n.boot.Hostname = name
	n.mu.Unlock()
	if err := unix.Sethostname([]byte(name)); err != nil {
		n.log.Error("set the host name", "err", err)
	}
	for _, s := range settings {
		if err := os.WriteFile(s.file, []byte(s.value), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
			n.log.Warn("setting "+s.file, "err", err)
		}
	}
	return errors.Join(line.Problem(), nameErr)
}

// goodHostname is RFC 1123, section 2.1, for one label.
func goodHostname(name string) bool {
	if len(name) < 1 || len(name) > 63 || name[0] == '-' || name[len(name)-1] == '-' {
		return false
	}
	for _, c := range name {
		if (c < 'a' || c > 'z') && (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '-' {
			return false
		}
	}
	return true
}

// hostname is the node's name: as the command line says, or made from the
// machine's UUID, so that two nodes have two names.
func hostname(line cmdline.Line) (string, error) {
	name, given := line.Option(cmdline.OptHostname)
	if given && goodHostname(name) {
		return name, nil
	}
	derived := "quantavirt"
	if id, err := os.ReadFile("/sys/class/dmi/id/product_uuid"); err == nil && len(id) >= 8 && goodHostname(string(id[:8])) {
		derived += "-" + strings.ToLower(string(id[:8]))
	}
	if given {
		return derived, qverr.New(qverr.Config, "quantavirt.hostname=%.80s is no host name of letters, digits and '-' with at most 63 characters; the node is %s", name, derived)
	}
	return derived, nil
}

// checkImage looks whether the kernel has unpacked all of the archive.
func (n *node) checkImage(context.Context) error {
	image, err := rootfs.Check("/", n.boot.Kernel)
	n.log.Info("image", "id", image.ID, "version", image.Version, "build", image.Build, "kernel", image.Kernel)
	if err != nil {
		n.show("quantavirt: *** THIS IMAGE IS NOT WHOLE: do not rely on this node ***")
	}
	return err
}

func (n *node) openConsoles(ctx context.Context) error {
	set := console.Open(n.ctx, n.log, "/dev", n.line.Consoles(), !n.line.Flag(cmdline.OptRescue))
	n.mu.Lock()
	n.consoles = set
	n.boot.Consoles = set.Names()
	early := n.early
	n.early = nil
	n.mu.Unlock()
	for _, text := range early {
		set.Say(text)
	}
	if n.line.Flag(cmdline.OptDebug) {
		set.Raw(n.ring.Bytes())
		n.ring.Tee(set.Raw)
	}
	if len(set.Names()) == 0 {
		return qverr.New(qverr.NoDev, "none of the consoles %v is there", n.line.Consoles())
	}
	return nil
}

func (n *node) serveSocket(context.Context) error {
	s, err := control.Listen(wire.Socket, n, n.log)
	if err != nil {
		return err
	}
	guard.Loop(n.ctx, n.log, "init.sock", func(ctx context.Context) {
		for {
			err := s.Serve(ctx)
			n.log.Error("init.sock", "err", err)
			for s, err = control.Listen(wire.Socket, n, n.log); err != nil; s, err = control.Listen(wire.Socket, n, n.log) {
				n.log.Error("init.sock", "err", err)
				<-time.After(time.Second)
			}
		}
	})
	return nil
}
