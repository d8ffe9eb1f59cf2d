package jail_test

import (
	"bytes"
	"errors"
	"fmt"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"runtime"
	"sync"
	"syscall"
	"testing"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/hv/vmm/jail"
)

const tryInside = "jail-test-try"

// attempts are what a process in the jail must not get through with.
var attempts = map[string]func(){
	"open a file":              func() { _, _ = os.Open("/") },
	"open a file with openat2": func() { _, _ = unix.Openat2(unix.AT_FDCWD, "/", &unix.OpenHow{}) },
	"make a file":              func() { _ = os.WriteFile("/file", nil, 0o600) },
	"statx by path":            func() { _ = unix.Statx(unix.AT_FDCWD, "/", 0, 0, &unix.Statx_t{}) },
	"TCP socket":               func() { _, _ = unix.Socket(unix.AF_INET, unix.SOCK_STREAM, 0) },
	"UNIX socket":              func() { _, _ = unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
	"vsock":                    func() { _, _ = unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0) },
	"socket pair":              func() { _, _ = unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM, 0) },
	"exec":                     func() { _ = syscall.Exec("/proc/self/exe", []string{"x"}, nil) },
	"fork":                     func() { raw(unix.SYS_CLONE, uintptr(unix.SIGCHLD)) },
	"fork with thread flags":   func() { raw(unix.SYS_CLONE, unix.CLONE_VM|unix.CLONE_FS|uintptr(unix.SIGCHLD)) },
	"clone into a namespace":   func() { raw(unix.SYS_CLONE, unix.CLONE_NEWUSER|uintptr(unix.SIGCHLD)) },
	"clone3":                   func() { raw(unix.SYS_CLONE3, 0, 0) },
	"vfork":                    func() { raw(unix.SYS_VFORK) },
	"kill":                     func() { _ = unix.Kill(1, 0) },
	"signal another process":   func() { _ = unix.Tgkill(os.Getpid()+1, 1, unix.SIGTERM) },
	"ptrace":                   func() { raw(unix.SYS_PTRACE, unix.PTRACE_SEIZE, 1) },
	"pidfd":                    func() { _, _ = unix.PidfdOpen(1, 0) },
	"read another's memory":    func() { raw(unix.SYS_PROCESS_VM_READV, 1) },
	"write another's memory":   func() { raw(unix.SYS_PROCESS_VM_WRITEV, 1) },
	"ioctl of a terminal":      func() { raw(unix.SYS_IOCTL, 0, unix.TIOCSTI) },
	"make a TAP":               func() { raw(unix.SYS_IOCTL, 0, unix.TUNSETIFF) },
	"map code":                 func() { _, _ = unix.Mmap(-1, 0, 4096, unix.PROT_EXEC, unix.MAP_PRIVATE|unix.MAP_ANON) },
	"make code":                func() { raw(unix.SYS_MPROTECT, 0, 0, unix.PROT_READ|unix.PROT_EXEC) },
	"lock another's file":      func() { raw(unix.SYS_FCNTL, 0, unix.F_OFD_SETLK) },
	"unshare":                  func() { _ = unix.Unshare(unix.CLONE_NEWNS) },
	"mount":                    func() { _ = unix.Mount("", "/", "tmpfs", 0, "") },
	"become root":              func() { _ = syscall.Setuid(0) },
	"load a BPF program":       func() { raw(unix.SYS_BPF, 0) },
	"perf":                     func() { raw(unix.SYS_PERF_EVENT_OPEN, 0) },
	"userfaultfd":              func() { raw(unix.SYS_USERFAULTFD, 0) },
	"loosen the filter":        func() { raw(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, 0, 0) },
	"a call of the x32 ABI":    func() { raw(0x4000_0000 | unix.SYS_GETPID) },
	"an unknown call":          func() { raw(999) },
	// What only the making of a machine needs, after it.
	"more guest RAM": func() { _, _ = unix.MemfdCreate("x", 0) },
	"another ring":   func() { raw(unix.SYS_IO_URING_SETUP, 1, 0) },
	// From a thread that was there before the filter.
	"open a file elsewhere": func() { early <- func() { _, _ = os.Open("/") }; <-early },
}

// early runs what it gets on a thread from before the jail.
var early = make(chan func())

func raw(call uintptr, args ...uintptr) {
	var a [6]uintptr
	copy(a[:], args)
	_, _, _ = unix.RawSyscall6(call, a[0], a[1], a[2], a[3], a[4], a[5])
}

const survived = "survived"

// try enters the jail in dir and does what must not be possible, or everything that
// must be.
func try(dir, name string) {
	go func() {
		runtime.LockOSThread()
		for f := range early {
			f()
			early <- nil
		}
	}()
	listener, path := listenControl(dir)
	client, err := net.Dial("unix", path)
	if err != nil {
		panic(err)
	}
	spec := jail.Spec{UID: 4242, GID: 4343, Dir: dir, Memlock: memlock, Hostname: "guest-1"}
	if err := jail.Enter(spec); err != nil {
		fmt.Print(err)
		return
	}
	ram, err := unix.MemfdCreate("guest-ram", unix.MFD_CLOEXEC|unix.MFD_ALLOW_SEALING)
	if err != nil {
		panic(err)
	}
	if err := spec.Seal(); err != nil {
		fmt.Print(err)
		return
	}
	if f := attempts[name]; f != nil {
		f()
	} else {
		work(ram, listener, client)
	}
	fmt.Print(survived)
}

func listenControl(dir string) (*os.File, string) {
	path := filepath.Join(dir, "control.sock")
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		panic(err)
	}
	l.SetUnlinkOnClose(false)
	f, err := l.File()
	if err != nil {
		panic(err)
	}
	return f, path
}

// work is what a VM process does all day, but for KVM.
func work(ram int, listener *os.File, client net.Conn) {
	must := func(err error) {
		if err != nil {
			panic(err)
		}
	}
	must(unix.Ftruncate(ram, 64<<20))
	data, err := unix.Mmap(ram, 0, 64<<20, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	must(err)
	must(unix.Madvise(data, unix.MADV_DONTDUMP))
	must(unix.Madvise(data[:1<<20], unix.MADV_REMOVE)) // pages that the guest gives back
	must(unix.Fallocate(ram, unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, 0, 1<<20))
	var wg sync.WaitGroup
	for range 20 { // threads, timers, garbage
		wg.Go(func() {
			runtime.LockOSThread()
			<-time.After(5 * time.Millisecond)
			for range 50 {
				_ = make([]byte, 1<<20)
			}
			_ = time.Now().Local().String()
		})
	}
	wg.Wait()
	runtime.GC()
	l, err := net.FileListener(listener)
	must(err)
	conn, err := l.Accept()
	must(err)
	must(conn.SetDeadline(time.Now().Add(time.Minute)))
	_, err = client.Write([]byte("GET"))
	must(err)
	buf := make([]byte, 3)
	_, err = conn.Read(buf)
	must(err)
	// A connection that came as a descriptor.
	file, err := conn.(*net.UnixConn).File()
	must(err)
	again, err := net.FileConn(file)
	must(err)
	must(errors.Join(again.Close(), file.Close(), conn.Close(), l.Close()))
	fd, err := unix.Eventfd(0, unix.EFD_NONBLOCK)
	must(err)
	f := os.NewFile(uintptr(fd), "eventfd")
	_, err = f.Write(bytes.Repeat([]byte{0, 1}, 4))
	must(err)
	var stx unix.Statx_t
	must(unix.Statx(fd, "", unix.AT_EMPTY_PATH, unix.STATX_SIZE, &stx))
	name := []byte("vcpu0\x00")
	must(unix.Prctl(unix.PR_SET_NAME, uintptr(unsafe.Pointer(&name[0])), 0, 0, 0))
}

// binary is this test, built as hv is: the C library, which cgo brings in, makes its
// threads in ways that the jail forbids.
func binary(t *testing.T) string {
	t.Helper()
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	if !withC {
		exe, err := os.Executable()
		if err != nil {
			t.Fatal(err)
		}
		return exe
	}
	exe := filepath.Join(t.TempDir(), "jail.test")
	build := exec.Command("go", "test", "-c", "-o", exe, ".")
	build.Env = append(os.Environ(), "CGO_ENABLED=0")
	if out, err := build.CombinedOutput(); err != nil {
		t.Fatalf("%v: %s", err, out)
	}
	return exe
}

// inJail runs try in namespaces of its own and returns what it said and how it ended.
func inJail(t *testing.T, exe, name string) (string, syscall.WaitStatus) {
	t.Helper()
	cmd := exec.Command(exe, tryInside, t.TempDir(), name)
	cmd.Env = []string{"TZ=UTC"}
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWUTS}
	out, err := cmd.CombinedOutput()
	if cmd.ProcessState == nil {
		t.Skipf("namespaces cannot be made here: %v", err)
	}
	return string(out), cmd.ProcessState.Sys().(syscall.WaitStatus)
}

func TestForbiddenAndAllowed(t *testing.T) {
	exe := binary(t)
	for name := range attempts {
		out, status := inJail(t, exe, name)
		if out != "" || !status.Signaled() || status.Signal() != unix.SIGSYS {
			t.Errorf("%s: status %#x, it says %q", name, status, out)
		}
	}
	if out, status := inJail(t, exe, ""); out != survived || status != 0 {
		t.Errorf("what is allowed: status %#x, it says %q", status, out)
	}
}
