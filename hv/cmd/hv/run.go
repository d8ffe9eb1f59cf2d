package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"time"

	"golang.org/x/term"

	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
)

// options of hv run.
type options struct {
	name, kernel, initrd, cmdline string
	unpacked                      string
	boot                          bootOptions
	memory                        string
	balloon                       bool
	cpus                          int
	placed                        placing
	disks, nics, ports, pci       listFlag
	cid                           uint
	vsockUser                     bool
	rngRate                       string
	console                       string
	runDir, cgroup                string
	uid                           uint
	noJail, logCalls              bool
	timeout                       time.Duration
}

// listFlag is a flag that may be given several times.
type listFlag []string

func (l *listFlag) String() string     { return strings.Join(*l, " ") }
func (l *listFlag) Set(s string) error { *l = append(*l, s); return nil }

func parseOptions(args []string) (options, error) {
	var o options
	fs := flag.NewFlagSet("hv run", flag.ContinueOnError)
	fs.StringVar(&o.name, "name", "hv-"+strconv.Itoa(os.Getpid()), "name of the VM")
	fs.StringVar(&o.kernel, "kernel", "", "bzImage or PVH kernel `FILE`")
	fs.StringVar(&o.unpacked, "unpacked", "", "the kernel as hv unpack stored it: `FILE`")
	fs.StringVar(&o.initrd, "initrd", "", "initrd `FILE`")
	fs.StringVar(&o.cmdline, "cmdline", "console=hvc0", "kernel command line")
	o.boot.flags(fs)
	fs.StringVar(&o.memory, "memory", "256M", "guest RAM in bytes, or with K, M or G")
	fs.BoolVar(&o.balloon, "balloon", false, "a balloon, which gives what the guest does not use back to the host")
	fs.IntVar(&o.cpus, "cpus", 1, "vCPUs, 1 to 256")
	o.placed.define(fs)
	fs.Var(&o.disks, "disk", "raw disk `FILE[,ro][,discard][,serial=S][,cache=C][,queues=N][,iops=N][,bandwidth=N]`; may be repeated")
	fs.Var(&o.nics, "tap", "network device on the TAP `NAME[,mac=M][,queues=N][,user]`, which must exist or may be made; may be repeated")
	fs.StringVar(&o.rngRate, "rng-rate", "0", "bytes a second that the guest may draw from its entropy device, or with K, M or G; 0 for no limit")
	fs.Var(&o.ports, "port", "`NAME` of a further port of the virtio console, at /console/NAME of the control socket; may be repeated")
	fs.Var(&o.pci, "pci", "function of the host that is bound to vfio-pci: `ADDRESS`, 0000:01:00.0; may be repeated")
	fs.UintVar(&o.cid, "vsock", 0, "vsock context id, 3 and up")
	fs.BoolVar(&o.vsockUser, "vsock-user", false, "vsock on UNIX sockets in the run directory, also where /dev/vhost-vsock is")
	fs.StringVar(&o.console, "console", vmm.ConsoleVirtio, "console on this terminal: virtio-console or serial")
	fs.StringVar(&o.runDir, "run-dir", "", "`DIR` of the control socket; a temporary one when not given")
	fs.StringVar(&o.cgroup, "cgroup", "", "cgroup `DIR` to make, with limits")
	fs.UintVar(&o.uid, "uid", 65534, "user and group of the VM process")
	fs.BoolVar(&o.noJail, "no-jail", os.Getuid() != 0, "leave out namespaces, change of user and the list of system calls")
	fs.BoolVar(&o.logCalls, "log-calls", false, "let forbidden system calls through; the kernel logs them")
	fs.DurationVar(&o.timeout, "timeout", 30*time.Second, "for the start")
	if err := fs.Parse(args); err != nil {
		return o, err
	}
	if fs.NArg() > 0 {
		return o, qverr.New(qverr.Inval, "unexpected argument %q", fs.Arg(0))
	}
	return o, o.checkBoot(fs)
}

// run starts a VM and returns the exit status of its process.
func run(args []string) (int, error) {
	o, err := parseOptions(args)
	if errors.Is(err, flag.ErrHelp) {
		return 0, nil
	}
	if err != nil {
		return 2, err
	}
	spec := vmm.Spec{Name: o.name, Cgroup: o.cgroup, UID: uint32(o.uid), GID: uint32(o.uid), RunDir: o.runDir,
		NoJail: o.noJail, LogCalls: o.logCalls, Log: os.Stderr, Files: map[string]*os.File{}}
	if spec.Binary, err = os.Executable(); err != nil {
		return vmm.ExitStart, err
	}
	if spec.RunDir == "" {
		if spec.RunDir, err = os.MkdirTemp("", "hv-run-"); err != nil {
			return vmm.ExitStart, err
		}
		defer os.RemoveAll(spec.RunDir)
	}
	if err := o.fill(&spec); err != nil {
		return vmm.ExitStart, err
	}
	ctx, cancel := context.WithTimeout(context.Background(), o.timeout)
	defer cancel()
	p, err := vmm.Spawn(ctx, spec)
	if err != nil {
		return vmm.ExitStart, err
	}
	for _, f := range spec.Files {
		f.Close()
	}
	if v := spec.Machine.Vsock; v != nil && v.Sockets != "" {
		go func() { _ = p.ServeVsock(context.Background()) }() // ends with the process
	}
	return attend(p, o.console)
}

// fill makes the machine of the options, and opens its files.
func (o *options) fill(spec *vmm.Spec) error {
	memory, err := parseSize(o.memory)
	if err != nil {
		return err
	}
	m := &spec.Machine
	m.Name, m.CPUs, m.Memory, m.Ports = o.name, o.cpus, memory, o.ports
	rate, err := parseSize(o.rngRate)
	if err != nil {
		return err
	}
	m.RNGLimit.PerSecond = uint64(rate)
	if err := o.placed.apply(m); err != nil {
		return err
	}
	if o.balloon {
		m.Balloon = &config.Balloon{}
	}
	m.Boot = config.Boot{Kernel: "kernel", Cmdline: o.cmdline}
	open := func(name, path string, flags int) error {
		f, err := os.OpenFile(path, flags, 0)
		if err != nil {
			return qverr.New(qverr.CodeOf(err), "%w", err)
		}
		spec.Files[name] = f
		return nil
	}
	if o.boot.firmware != "" {
		m.Boot = config.Boot{}
		if err := o.boot.fill(&m.Boot, open); err != nil {
			return err
		}
	} else if err := open("kernel", o.kernel, os.O_RDONLY); err != nil {
		return err
	}
	if o.unpacked != "" {
		m.Boot.Unpacked = "unpacked"
		if err := open("unpacked", o.unpacked, os.O_RDONLY); err != nil {
			return err
		}
	}
	if o.initrd != "" {
		m.Boot.Initrd = "initrd"
		if err := open("initrd", o.initrd, os.O_RDONLY); err != nil {
			return err
		}
	}
	for i, arg := range o.disks {
		if err := addDisk(spec, i, arg); err != nil {
			return err
		}
	}
	for i, arg := range o.nics {
		if err := addNIC(spec, i, arg); err != nil {
			return err
		}
	}
	o.boot.setOrder(m)
	if len(o.pci) > 0 {
		a, err := vfio.Assign(o.pci)
		if err != nil {
			return err
		}
		spec.AddPCI(o.pci, a)
	}
	if o.cid == 0 {
		return nil
	}
	return addVsock(spec, uint32(o.cid), o.vsockUser)
}

func parseSize(s string) (int64, error) {
	unit := int64(1)
	if last := len(s) - 1; last > 0 {
		if i := strings.IndexByte("KMG", s[last]); i >= 0 {
			unit, s = 1<<(10*(i+1)), s[:last]
		}
	}
	n, err := strconv.ParseInt(s, 10, 64)
	if err != nil || n < 0 || n > 1<<62/unit {
		return 0, qverr.New(qverr.Inval, "size %q", s)
	}
	return n * unit, nil
}

// leaveKey ends hv run: Ctrl-], as in the console of the appliance.
const leaveKey = 0x1d

// attend connects the terminal with the console until the VM is over.
func attend(p *vmm.Process, console string) (int, error) {
	ctx := context.Background()
	conn, err := p.Client().Console(ctx, console)
	if err == nil {
		defer conn.Close()
		restore := rawTerminal()
		defer restore()
		if console == vmm.ConsoleVirtio {
			defer followSize(p)()
		}
		go typeIn(p, conn)
		_, _ = io.Copy(os.Stdout, conn)
	}
	report, waitErr := p.Wait(ctx)
	if waitErr != nil {
		return vmm.ExitInternal, waitErr
	}
	fmt.Fprintf(os.Stderr, "\r\nhv: %s\r\n", report.Message)
	if report.Status < 0 {
		return 128 + report.Signal, err
	}
	return report.Status, err
}

func rawTerminal() (restore func()) {
	fd := int(os.Stdin.Fd())
	if !term.IsTerminal(fd) {
		return func() {}
	}
	old, err := term.MakeRaw(fd)
	if err != nil {
		return func() {}
	}
	return func() { _ = term.Restore(fd, old) }
}

// typeIn sends what is typed. The end of the input leaves the VM running.
func typeIn(p *vmm.Process, w io.Writer) {
	buf := make([]byte, 256)
	for {
		n, err := os.Stdin.Read(buf)
		for _, c := range buf[:n] {
			if c == leaveKey && term.IsTerminal(int(os.Stdin.Fd())) {
				_ = p.Client().Quit(context.Background())
				return
			}
		}
		if _, werr := w.Write(buf[:n]); werr != nil || err != nil {
			return
		}
	}
}
