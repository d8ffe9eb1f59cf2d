package jail_test

import (
	"bytes"
	"encoding/json"
	"os"
	"os/exec"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/hv/vmm/jail"
)

// seen is what the process in the jail finds.
type seen struct {
	Error    string
	UID, GID int
	Groups   []int
	PID      int
	Hostname string
	Root     []string
	Write    string // error of writing to the root
	Proc     string // error of opening /proc
	Regain   string // error of becoming root again
	NoNewPrivs,
	Memlock uint64
	Threads []int // uid of some threads
}

// memlock is a limit that needs no right to raise one.
const memlock = 1 << 16

const inside = "jail-test-inside"

func TestMain(m *testing.M) {
	switch {
	case len(os.Args) == 3 && os.Args[1] == inside:
		_ = json.NewEncoder(os.Stdout).Encode(look(os.Args[2]))
		return
	case len(os.Args) == 4 && os.Args[1] == tryInside:
		try(os.Args[2], os.Args[3])
		return
	}
	os.Exit(m.Run())
}

func look(dir string) seen {
	// Threads that exist before must be locked in too.
	ask := make(chan chan int)
	for range 4 {
		go func() {
			for answer := range ask {
				uid, _, _ := unix.RawSyscall(unix.SYS_GETUID, 0, 0, 0)
				if n, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0); n != 1 {
					uid = 0
				}
				answer <- int(uid)
			}
		}()
	}
	var s seen
	if err := jail.Enter(jail.Spec{UID: 4242, GID: 4343, Dir: dir, Memlock: memlock, Hostname: "guest-1", LogCalls: true}); err != nil {
		s.Error = err.Error()
		return s
	}
	s.UID, s.GID, s.PID = os.Getuid(), os.Getgid(), os.Getpid()
	s.Groups, _ = os.Getgroups()
	s.Hostname, _ = os.Hostname()
	entries, err := os.ReadDir("/")
	if err != nil {
		s.Error = err.Error()
	}
	for _, e := range entries {
		s.Root = append(s.Root, e.Name())
	}
	s.Write = text(os.WriteFile("/file", nil, 0o600))
	_, err = os.Open("/proc/self/status")
	s.Proc = text(err)
	s.Regain = text(syscall.Setuid(0))
	n, _ := unix.PrctlRetInt(unix.PR_GET_NO_NEW_PRIVS, 0, 0, 0, 0)
	s.NoNewPrivs = uint64(n)
	var limit unix.Rlimit
	_ = unix.Prlimit(0, unix.RLIMIT_MEMLOCK, nil, &limit)
	s.Memlock = limit.Cur
	for range 8 {
		answer := make(chan int)
		ask <- answer
		s.Threads = append(s.Threads, <-answer)
	}
	return s
}

func text(err error) string {
	if err == nil {
		return ""
	}
	return err.Error()
}

func TestEnter(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	dir := t.TempDir()
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, inside, dir)
	cmd.Stderr = os.Stderr
	var out bytes.Buffer
	cmd.Stdout = &out
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC | unix.CLONE_NEWNET | unix.CLONE_NEWUTS}
	if err := cmd.Run(); err != nil {
		t.Skipf("namespaces cannot be made here: %v", err)
	}
	var s seen
	if err := json.Unmarshal(out.Bytes(), &s); err != nil {
		t.Fatalf("%v: %s", err, out.Bytes())
	}
	if s.Error != "" || s.UID != 4242 || s.GID != 4343 || len(s.Groups) > 1 || s.PID != 1 || s.Hostname != "guest-1" ||
		s.NoNewPrivs != 1 || s.Memlock != memlock {
		t.Errorf("%+v", s)
	}
	if len(s.Root) != 0 || !strings.Contains(s.Write, "read-only") || !strings.Contains(s.Proc, "no such file") || s.Regain == "" {
		t.Errorf("%+v", s)
	}
	for _, uid := range s.Threads {
		if uid != 4242 {
			t.Errorf("a thread runs as %d", uid)
		}
	}
	if left, err := os.ReadDir(dir); err != nil || len(left) != 0 {
		t.Errorf("the directory outside: %v, %v", left, err)
	}
}

func TestEnterFails(t *testing.T) {
	if os.Getuid() != 0 {
		t.Skip("namespaces need root")
	}
	exe, err := os.Executable()
	if err != nil {
		t.Fatal(err)
	}
	cmd := exec.Command(exe, inside, "/no/such/directory")
	cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS | unix.CLONE_NEWUTS}
	out, err := cmd.Output()
	if err != nil {
		t.Skipf("namespaces cannot be made here: %v", err)
	}
	if !strings.Contains(string(out), "mount over /no/such/directory") {
		t.Errorf("%s", out)
	}
}
