package vmm

import (
	"context"
	"errors"
	"fmt"
	"io"
	"maps"
	"net"
	"os"
	"os/exec"
	"runtime"
	"strconv"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

// Spec is a VM to start.
type Spec struct {
	// Binary is the path of hv, "/bin/hv" in the appliance.
	Binary string
	// Name is the VM's name; it must be fit for a directory name.
	Name string
	// Machine is what to build. Machine.Name may be empty.
	Machine config.Machine
	// Files holds an open file for each name in Machine. Spawn passes copies and
	// leaves these to the caller. Locks are the caller's business (block.Lock):
	// they are held by the open file, so the copy holds them as long as the VM runs.
	// /dev/kvm may be given as config.FileKVM, else Spawn opens it.
	Files map[string]*os.File
	// Cgroup is the directory to make for the VM, "/sys/fs/cgroup/vm/NAME"; "" runs
	// it without limits in the cgroup of the caller. It is removed after the end.
	Cgroup string
	// MemoryMax overrides MemoryLimit(Machine.Memory), in bytes.
	MemoryMax int64
	// CPUWeight is the cgroup's cpu.weight, 1 to 10000; 0 leaves the default of 100.
	CPUWeight uint64
	// CPULimit caps the processor time in units of one CPU; 0 means no cap.
	CPULimit float64
	// UID and GID are what the process runs as; give each VM its own.
	UID, GID uint32
	// RunDir is "/run/quantavirt": the VM's files are in RunDir/vm/NAME.
	RunDir string
	// Log gets the log lines of the process and the stack of a panic; nil discards them.
	Log *os.File
	// Grace is how long the guest has after a SIGTERM to the process to power off;
	// 0 means 30 s.
	Grace time.Duration
	// NoJail leaves out the namespaces, the empty root, the change of user and the
	// list of system calls; for tests and for hv run without root.
	NoJail bool
	// LogCalls has the kernel log forbidden system calls instead of ending the
	// process; for development.
	LogCalls bool
}

const (
	defaultGrace = 30 * time.Second
	// memlock is guest RAM (VFIO pins it) and the rest of the process.
	memlockExtra = 64 << 20
)

func (s *Spec) memoryLimit() int64 {
	if s.MemoryMax > 0 {
		return s.MemoryMax
	}
	return MemoryLimit(s.Machine.Memory)
}

// Spawn starts a VM process and returns once the machine is built and its vCPUs
// run. If anything fails, or ctx ends before, nothing is left behind, and the
// error carries the code of the VM process if it gave one. A VM of that name
// must not be running: Spawn refuses with QV_ERR_EXIST when its control socket
// answers.
func Spawn(ctx context.Context, spec Spec) (*Process, error) {
	if spec.Machine.Name == "" {
		spec.Machine.Name = spec.Name
	}
	if err := spec.check(); err != nil {
		return nil, err
	}
	if _, err := NewClient(SocketPath(spec.RunDir, spec.Name)).Info(ctx); err == nil {
		return nil, qverr.New(qverr.Exist, "VM %s is running already", spec.Name)
	}
	l, err := newLaunch(ctx, &spec)
	if err != nil {
		return nil, err
	}
	defer l.closeFiles()
	if err := l.clone(); err != nil {
		l.undo()
		return nil, err
	}
	p := newProcess(spec.Name, spec.RunDir, spec.Cgroup, l.cmd.Process.Pid)
	go p.reap(l.cmd)
	if err := l.start(ctx, p); err != nil {
		_ = p.Kill()
		<-p.done
		return nil, err
	}
	return p, nil
}

func (s *Spec) check() error {
	if err := s.Machine.Validate(); err != nil {
		return err
	}
	if s.Name == "." || s.Name == ".." || s.Name != s.Machine.Name {
		return qverr.New(qverr.Config, "VM name %q", s.Name).With("path", "name")
	}
	if s.CPUWeight > 10000 || s.CPULimit < 0 {
		return qverr.New(qverr.Config, "CPU weight %d, limit %g", s.CPUWeight, s.CPULimit).With("path", "cpu")
	}
	if !s.NoJail && s.UID == 0 {
		return qverr.New(qverr.Inval, "VM %s would run as root", s.Name)
	}
	return nil
}

// launch is what exists only while a VM starts.
type launch struct {
	spec         *Spec
	ours, theirs *os.File // start channel
	files        map[string]*os.File
	own          []*os.File // closed when the launch is over
	cgroup       *os.File
	cmd          *exec.Cmd
}

func newLaunch(ctx context.Context, spec *Spec) (*launch, error) {
	l := &launch{spec: spec, files: maps.Clone(spec.Files)}
	if l.files == nil {
		l.files = map[string]*os.File{}
	}
	err := l.prepare(ctx)
	if err != nil {
		l.closeFiles()
		l.undo()
		return nil, err
	}
	return l, nil
}

func (l *launch) prepare(ctx context.Context) (err error) {
	spec := l.spec
	if l.files[config.FileKVM] == nil {
		kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
		if err != nil {
			return qverr.New(qverr.NoVMX, "open /dev/kvm: %w", err)
		}
		l.add(config.FileKVM, kvm)
	}
	if err := os.MkdirAll(vmDir(spec.RunDir, spec.Name), 0o700); err != nil {
		return qverr.New(qverr.VMStart, "directory of VM %s: %w", spec.Name, err)
	}
	report, err := os.OpenFile(ExitPath(spec.RunDir, spec.Name), os.O_RDWR|os.O_CREATE|os.O_TRUNC, 0o600)
	if err != nil {
		return qverr.New(qverr.VMStart, "exit report of VM %s: %w", spec.Name, err)
	}
	l.add(config.FileExit, report)
	control, err := listen(SocketPath(spec.RunDir, spec.Name))
	if err != nil {
		return qverr.New(qverr.VMStart, "control socket of VM %s: %w", spec.Name, err)
	}
	l.add(config.FileControl, control)
	if l.ours, l.theirs, err = StartPair(); err != nil {
		return err
	}
	l.own = append(l.own, l.ours, l.theirs)
	if spec.Cgroup != "" {
		if l.cgroup, err = makeCgroup(ctx, spec); err != nil {
			return err
		}
		l.own = append(l.own, l.cgroup)
	}
	return nil
}

func (l *launch) add(name string, f *os.File) {
	l.files[name] = f
	l.own = append(l.own, f)
}

// closeFiles closes our copies, the listening socket above all: while we had it
// open, calls to a dead VM would hang instead of failing.
func (l *launch) closeFiles() {
	for _, f := range l.own {
		f.Close()
	}
	l.own = nil
}

// undo removes what prepare made, when there is no process to do it after.
func (l *launch) undo() {
	cleanup(context.Background(), l.spec.RunDir, l.spec.Name, l.spec.Cgroup)
}

func listen(path string) (*os.File, error) {
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, err
	}
	l, err := net.ListenUnix("unix", &net.UnixAddr{Name: path, Net: "unix"})
	if err != nil {
		return nil, err
	}
	l.SetUnlinkOnClose(false)
	defer l.Close()
	if err := os.Chmod(path, 0o600); err != nil {
		return nil, err
	}
	return l.File()
}

func (l *launch) clone() error {
	spec := l.spec
	cmd := exec.Command(spec.Binary)
	cmd.Args = []string{"hv", "vm/" + spec.Name}
	// TZ spares package time the look at /etc/localtime, which the jail forbids.
	cmd.Env = []string{"GOMAXPROCS=" + strconv.Itoa(min(runtime.NumCPU(), spec.Machine.CPUs+2)), "GOTRACEBACK=all", "TZ=UTC",
		// A huge page or two for a heap that needs a tenth of one.
		"GODEBUG=disablethp=1"}
	cmd.Dir = "/"
	cmd.ExtraFiles = []*os.File{l.theirs}
	if spec.Log != nil {
		cmd.Stdout, cmd.Stderr = spec.Log, spec.Log
	}
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if !spec.NoJail {
		cmd.SysProcAttr.Cloneflags = unix.CLONE_NEWNS | unix.CLONE_NEWPID | unix.CLONE_NEWIPC |
			unix.CLONE_NEWNET | unix.CLONE_NEWUTS
	}
	if l.cgroup != nil {
		cmd.SysProcAttr.UseCgroupFD = true
		cmd.SysProcAttr.CgroupFD = int(l.cgroup.Fd())
	}
	if err := cmd.Start(); err != nil {
		return qverr.New(qverr.VMStart, "start process of VM %s: %w", spec.Name, err)
	}
	l.cmd = cmd
	l.theirs.Close()
	return nil
}

// start sends the frame and waits for the answer.
func (l *launch) start(ctx context.Context, p *Process) error {
	spec := l.spec
	if spec.Cgroup != "" {
		adj := fmt.Sprintf("/proc/%d/oom_score_adj", p.PID)
		if err := os.WriteFile(adj, []byte(strconv.Itoa(oomScoreAdj)), 0); err != nil {
			return qverr.New(qverr.VMStart, "VM %s: %w", spec.Name, err)
		}
	}
	f := Frame{Machine: spec.Machine, Grace: spec.Grace}
	if f.Grace == 0 {
		f.Grace = defaultGrace
	}
	if !spec.NoJail {
		f.Jail = &Jail{UID: spec.UID, GID: spec.GID, Dir: vmDir(spec.RunDir, spec.Name),
			Memlock: uint64(spec.Machine.Memory) + memlockExtra, LogCalls: spec.LogCalls}
	}
	// A process that has died already says so below.
	if err := SendFrame(l.ours, f, l.files); err != nil && !errors.Is(err, unix.EPIPE) && !errors.Is(err, unix.ECONNRESET) {
		return err
	}
	// Until the process answers, the end of ctx ends it; that ends the wait too.
	stop := context.AfterFunc(ctx, func() { _ = p.Kill() })
	defer stop()
	err := receiveAnswer(l.ours)
	if !errors.Is(err, io.EOF) {
		return err
	}
	<-p.done
	if cause := ctx.Err(); cause != nil {
		return qverr.New(qverr.CodeOf(cause), "VM %s was not started in time: %w", spec.Name, cause)
	}
	return qverr.New(qverr.VMStart, "VM %s: %s", spec.Name, p.report.Message)
}
