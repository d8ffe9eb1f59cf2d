package lab

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"quantavirt/image/tools"
)

// Up starts an appliance and, unless Options.NoWait is set, waits until its API
// is ready. On failure nothing is left running, and the error ends with the
// last lines of the console.
func Up(ctx context.Context, o Options) (n *Node, err error) {
	if err := o.complete(); err != nil {
		return nil, err
	}
	root, err := Root()
	if err != nil {
		return nil, err
	}
	if old, err := Load(root, o.Name); err == nil && old.Running() {
		return nil, fmt.Errorf("lab: node %s is already running (pid %d)", o.Name, old.PID)
	}
	toolRoot, err := tools.Ensure(ctx, io.Discard)
	if err != nil {
		return nil, err
	}
	n = &Node{Name: o.Name, Dir: filepath.Join(Dir(root), o.Name)}
	if err := n.prepare(o, toolRoot); err != nil {
		return nil, err
	}
	made := n // a return of an error forgets it
	defer func() {
		if err != nil {
			_ = made.Down()
		}
	}()
	l := launch{opts: o, dir: n.Dir}
	image := filepath.Join(root, "build", "image", o.Build)
	l.kernel, l.initrd = filepath.Join(image, "vmlinuz"), filepath.Join(image, "initramfs.zst")
	if o.Archive != "" {
		if l.initrd, err = n.join(o.Archive, l.initrd); err != nil {
			return nil, err
		}
	}
	if !o.FirstToken {
		n.Token, l.hash = newToken()
	}
	if o.Card {
		if err := n.startModel(ctx, root); err != nil {
			return nil, err
		}
	}
	if l.ovmf, err = n.prepareFirmware(o, toolRoot); err != nil {
		return nil, err
	}
	if err := n.startQEMU(toolRoot, l); err != nil {
		return nil, err
	}
	if err := n.save(); err != nil {
		return nil, err
	}
	if o.NoWait {
		return n, nil
	}
	if err := n.WaitReady(ctx); err != nil {
		return nil, fmt.Errorf("%w; end of its console:\n%s", err, Tail(n.ConsoleLog, 40))
	}
	return n, n.save()
}

// prepare makes the node's directory and disks.
func (n *Node) prepare(o Options, root tools.Root) error {
	if err := os.MkdirAll(n.Dir, 0o755); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	n.ConsoleLog = filepath.Join(n.Dir, "console.log")
	n.Monitor = filepath.Join(n.Dir, "qmp.sock")
	n.SerialSocket = filepath.Join(n.Dir, "serial.sock")
	if err := os.WriteFile(n.ConsoleLog, nil, 0o644); err != nil {
		return fmt.Errorf("lab: %w", err)
	}
	if o.Medium.Log != "" {
		if err := os.WriteFile(o.Medium.Log, nil, 0o644); err != nil {
			return fmt.Errorf("lab: %w", err)
		}
	}
	if o.DataDisk == 0 {
		return nil
	}
	n.DataDisk = filepath.Join(n.Dir, "data.img")
	if _, err := os.Stat(n.DataDisk); err == nil && o.KeepData {
		return nil
	}
	if err := removeIfThere(n.DataDisk); err != nil {
		return err
	}
	f, err := os.Create(n.DataDisk)
	if err != nil {
		return err
	}
	err = errors.Join(f.Truncate(int64(o.DataDisk)<<20), f.Close())
	if err != nil {
		return err
	}
	mkfs := root.Command("mkfs.ext4", "-q", "-F", "-L", "QV-DATA", n.DataDisk)
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("lab: mkfs.ext4 %s: %w: %s", n.DataDisk, err, out)
	}
	return nil
}

// join puts two archives into one file: the kernel unpacks one after the other,
// if each begins at a multiple of four bytes.
func (n *Node) join(first, second string) (string, error) {
	path := filepath.Join(n.Dir, "initramfs")
	out, err := os.Create(path)
	if err != nil {
		return "", err
	}
	defer out.Close()
	for _, name := range []string{first, second} {
		data, err := os.ReadFile(name)
		if err != nil {
			return "", err
		}
		data = append(data, make([]byte, -len(data)&3)...)
		if _, err := out.Write(data); err != nil {
			return "", err
		}
	}
	return path, nil
}

// WaitLine waits until the console says a text.
func (n *Node) WaitLine(ctx context.Context, text string) (string, error) {
	return n.WaitLineAfter(ctx, 0, text)
}

// WaitLineAfter is WaitLine for what the console says after a mark.
func (n *Node) WaitLineAfter(ctx context.Context, mark int64, text string) (string, error) {
	var found string
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	stop, err := n.cancelAtExit(cancel)
	if err != nil { // it has ended, and says nothing more
		cancel()
		stop = func() {}
	}
	defer stop()
	err = follow(ctx, n.ConsoleLog, mark, func(line string) bool {
		if strings.Contains(line, text) {
			found = line
			return true
		}
		return false
	})
	if err != nil {
		if !n.Running() {
			err = fmt.Errorf("QEMU ended: %s", Tail(filepath.Join(n.Dir, "qemu.log"), 20))
		}
		return "", fmt.Errorf("lab: waiting for %q on the console of %s: %w; it ends with:\n%s", text, n.Name, err, Tail(n.ConsoleLog, 20))
	}
	return found, nil
}

// startModel starts the model of the card and waits until it listens, which it
// says on its standard output.
func (n *Node) startModel(ctx context.Context, root string) error {
	socket := filepath.Join(n.Dir, "card.sock")
	if err := removeIfThere(socket); err != nil {
		return err
	}
	logPath := filepath.Join(n.Dir, "card.log")
	logFile, err := os.Create(logPath)
	if err != nil {
		return err
	}
	defer logFile.Close()
	cmd := exec.Command(filepath.Join(root, "build", "bin", "quac100-model"), "--socket", socket, "--control", n.cardControl())
	cmd.Stdout, cmd.Stderr = logFile, logFile
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: start the card's model: %w", err)
	}
	n.ModelPID = cmd.Process.Pid
	ctx, cancel := context.WithTimeout(ctx, 30*time.Second)
	defer cancel()
	err = follow(ctx, logPath, 0, func(line string) bool { return strings.HasPrefix(line, "listening on ") })
	if err != nil {
		return fmt.Errorf("lab: the card's model did not listen: %w: %s", err, Tail(logPath, 10))
	}
	return nil
}

// startQEMU runs QEMU in a session of its own, so that it outlives us.
func (n *Node) startQEMU(root tools.Root, l launch) error {
	port, err := freePort()
	if err != nil {
		return err
	}
	l.apiPort = port
	n.Ports = map[string]int{"api": port}
	n.URL = fmt.Sprintf("https://127.0.0.1:%d", port)

	path, prefix := root.QEMU()
	var files []*os.File
	if l.opts.Outside || l.opts.Netboot != nil {
		tap, namespace, err := outsideTAP(l.opts.Name)
		if err != nil {
			return err
		}
		defer tap.Close()
		n.Namespace = namespace
		files = append(files, tap)
		l.tapFD = 2 + len(files)
	}
	if l.opts.Netboot != nil {
		n.FromInside = true
		if err := l.opts.Netboot.Serve(n.Namespace, l.hash); err != nil {
			return fmt.Errorf("lab: serve %s: %w", n.Name, err)
		}
	}
	if l.opts.TPM {
		tpm, err := n.startTPM(root)
		if err != nil {
			return err
		}
		defer tpm.Close()
		files = append(files, tpm)
		l.tpmFD = 2 + len(files)
	}
	errLog, err := os.Create(filepath.Join(n.Dir, "qemu.log"))
	if err != nil {
		return err
	}
	defer errLog.Close()
	cmd := exec.Command(path, append(prefix, l.args()...)...)
	cmd.Stdout, cmd.Stderr, cmd.ExtraFiles = errLog, errLog, files
	cmd.SysProcAttr = &syscall.SysProcAttr{Setsid: true}
	if err := cmd.Start(); err != nil {
		return fmt.Errorf("lab: start QEMU: %w", err)
	}
	n.PID, n.Started = cmd.Process.Pid, time.Now()
	return nil
}

// freePort finds a TCP port of the loopback address that nobody listens on.
func freePort() (int, error) {
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		return 0, fmt.Errorf("lab: %w", err)
	}
	port := l.Addr().(*net.TCPAddr).Port
	return port, l.Close()
}

// readyPrefix begins the line by which the daemon says on the console that its
// API answers; url= and ca= follow.
const readyPrefix = "quantavirt: ready "

// ConsoleMark is a place in the console log, for WaitReadyAfter.
func (n *Node) ConsoleMark() int64 {
	info, err := os.Stat(n.ConsoleLog)
	if err != nil {
		return 0
	}
	return info.Size()
}

// WaitReady waits until the node says on its console that its API is ready, and
// takes the pin of its authority from there. It fails as soon as QEMU ends.
func (n *Node) WaitReady(ctx context.Context) error { return n.WaitReadyAfter(ctx, 0) }

// WaitReadyAfter is WaitReady for what the console says after a mark.
func (n *Node) WaitReadyAfter(ctx context.Context, mark int64) error {
	limit := 60 * time.Second
	if !hardwareKVM() {
		limit = 180 * time.Second
	}
	ctx, cancel := context.WithTimeoutCause(ctx, limit,
		fmt.Errorf("lab: %s was not ready after %s", n.Name, limit))
	defer cancel()
	stop, err := n.cancelAtExit(cancel)
	if err != nil {
		return err
	}
	defer stop()
	err = follow(ctx, n.ConsoleLog, mark, func(line string) bool {
		if _, token, ok := strings.Cut(line, "quantavirt: token "); ok && n.Token == "" {
			n.Token = strings.TrimSpace(token)
		}
		_, rest, ok := strings.Cut(line, readyPrefix)
		if !ok {
			return false
		}
		for word := range strings.FieldsSeq(rest) {
			if pin, ok := strings.CutPrefix(word, "ca="); ok {
				n.CA = pin
			}
			if url, ok := strings.CutPrefix(word, "url="); ok && n.FromInside {
				n.URL = url
			}
		}
		return true
	})
	if n.BootTime == 0 {
		n.BootTime = time.Since(n.Started)
	}
	if err == nil {
		return nil
	}
	if !n.Running() {
		return fmt.Errorf("lab: QEMU of %s ended: %s", n.Name, Tail(filepath.Join(n.Dir, "qemu.log"), 20))
	}
	if cause := context.Cause(ctx); cause != nil {
		return cause
	}
	return err
}

// cancelAtExit calls cancel when QEMU ends, until stop is called.
func (n *Node) cancelAtExit(cancel func()) (stop func(), err error) {
	fd, err := pidfdOpen(n.PID)
	if err != nil {
		return nil, fmt.Errorf("lab: QEMU of %s ended: %s", n.Name, Tail(filepath.Join(n.Dir, "qemu.log"), 20))
	}
	r, w, err := os.Pipe()
	if err != nil {
		_ = syscall.Close(fd)
		return nil, err
	}
	ended := make(chan struct{})
	go func() {
		defer close(ended)
		if firstReadable(fd, int(r.Fd())) == fd {
			cancel()
		}
	}()
	return func() {
		_ = w.Close() // wakes the poll
		<-ended
		_ = r.Close()
		_ = syscall.Close(fd)
	}, nil
}
