// Package jail locks a VM process in before it runs guest code.
//
// The daemon has cloned the process into namespaces of its own (mount, PID, IPC,
// network, UTS) and into its cgroup; Enter does the rest from inside: limits, an
// empty read-only root, an unprivileged user on all threads, no_new_privs, and a
// list of allowed system calls (allowlist.go), all others of which end the process.
// Seal takes away what only the making of a machine needs.
package jail

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Spec is how to lock in.
type Spec struct {
	UID, GID uint32
	// Dir is any directory: the new root is mounted over it.
	Dir string
	// Memlock is the RLIMIT_MEMLOCK to have, in bytes. VFIO counts pinned guest
	// memory against it.
	Memlock uint64
	// Hostname is what the UTS namespace shows.
	Hostname string
	// LogCalls lets forbidden system calls through and has the kernel log them
	// (audit messages of type 1326): for development.
	LogCalls bool
}

// Enter locks the process in. It must run as root in a mount namespace that is
// shared with nobody, before vCPU threads exist, and cannot be undone; after an
// error the process must end.
func Enter(s Spec) error {
	for _, step := range []struct {
		name string
		do   func() error
	}{
		{"set limits", s.limits},
		{"set host name", func() error { return unix.Sethostname([]byte(s.Hostname)) }},
		{"go to an empty root", s.emptyRoot},
		{"give up root", s.dropUser},
		{"allow system calls", s.allowCalls},
	} {
		if err := step.do(); err != nil {
			return qverr.New(qverr.VMStart, "jail: %s: %w", step.name, err)
		}
	}
	return nil
}

// Seal forbids what only the making of a machine needs. It follows Enter, before
// guest code runs.
func (s *Spec) Seal() error {
	if err := install(sealProgram(allowlist, s.denied())); err != nil {
		return qverr.New(qverr.VMStart, "jail: seal: %w", err)
	}
	return nil
}

func (s *Spec) denied() action {
	if s.LogCalls {
		return actLog
	}
	return actKill
}

func (s *Spec) limits() error {
	for _, l := range []struct {
		resource int
		max      uint64
	}{
		{unix.RLIMIT_MEMLOCK, s.Memlock},
		{unix.RLIMIT_CORE, 0},
	} {
		if err := unix.Prlimit(0, l.resource, &unix.Rlimit{Cur: l.max, Max: l.max}, nil); err != nil {
			return fmt.Errorf("limit %d to %d: %w", l.resource, l.max, err)
		}
	}
	return nil
}

const rootFlags = unix.MS_NOSUID | unix.MS_NODEV | unix.MS_NOEXEC

// emptyRoot makes a tmpfs without room for any file the root of all threads.
func (s *Spec) emptyRoot() error {
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		return fmt.Errorf("make mounts private: %w", err)
	}
	if err := unix.Mount("jail", s.Dir, "tmpfs", rootFlags, "size=4k,nr_inodes=1,mode=555"); err != nil {
		return fmt.Errorf("mount over %s: %w", s.Dir, err)
	}
	if err := unix.Chdir(s.Dir); err != nil {
		return err
	}
	// With both paths the same, the old root ends up stacked on the new one.
	err := unix.PivotRoot(".", ".")
	switch {
	case err == nil:
		err = unix.Unmount(".", unix.MNT_DETACH)
	case errors.Is(err, unix.EINVAL):
		// The root is the kernel's initramfs, which cannot be pivoted away.
		if err = unix.Mount(".", "/", "", unix.MS_MOVE, ""); err == nil {
			err = unix.Chroot(".")
		}
	}
	if err != nil {
		return fmt.Errorf("change root: %w", err)
	}
	if err := unix.Chdir("/"); err != nil {
		return err
	}
	return unix.Mount("", "/", "", unix.MS_REMOUNT|unix.MS_RDONLY|rootFlags, "")
}

// dropUser changes all threads: package syscall does so, and unix does not.
func (s *Spec) dropUser() error {
	if err := syscall.Setgroups(nil); err != nil {
		return fmt.Errorf("drop groups: %w", err)
	}
	if err := syscall.Setresgid(int(s.GID), int(s.GID), int(s.GID)); err != nil {
		return fmt.Errorf("set group %d: %w", s.GID, err)
	}
	if err := syscall.Setresuid(int(s.UID), int(s.UID), int(s.UID)); err != nil {
		return fmt.Errorf("set user %d: %w", s.UID, err)
	}
	return nil
}

// allowCalls sets no_new_privs on this thread; the filter carries it to the others.
func (s *Spec) allowCalls() error {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	if err := unix.Prctl(unix.PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0); err != nil {
		return fmt.Errorf("set no_new_privs: %w", err)
	}
	return install(program(allowlist, os.Getpid(), s.denied()))
}
