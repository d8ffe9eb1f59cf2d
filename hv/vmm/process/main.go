package process

import (
	"encoding/json"
	"io"
	"log/slog"
	"net"
	"os"
	"os/signal"
	"runtime/debug"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/config"
	"quantavirt/hv/machine"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/jail"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

// gcPercent keeps the heap of a process small of which a node runs many: the
// runtime's smallest heap is 4 MiB times this over 100.
const gcPercent = 20

// Main runs the VM process called name: it takes the start frame from descriptor
// vmm.StartFD and returns the exit status when the VM is over.
func Main(name string) int {
	debug.SetGCPercent(gcPercent)
	// Guest RAM is to have huge pages, where the host gives them to shared memory; who
	// started us may have none of its own (prctl(2)).
	_ = unix.Prctl(unix.PR_SET_THP_DISABLE, 0, 0, 0, 0)
	// The log may be a pipe whose reader is gone with the daemon; the VM stays.
	signal.Ignore(unix.SIGPIPE, unix.SIGHUP)
	log := qvlog.New(newBoundedLog(os.Stderr), qvlog.Options{}).With("subsystem", "vm", "vm", name)
	sock := os.NewFile(vmm.StartFD, "start")
	frame, files, err := vmm.ReceiveFrame(sock)
	if err == nil && frame.Machine.Name != name {
		err = qverr.New(qverr.Inval, "start frame for VM %q came to VM %q", frame.Machine.Name, name)
	}
	if err != nil {
		return refuse(log, sock, nil, err)
	}
	vm, listener, err := begin(frame, files, log)
	if err != nil {
		return refuse(log, sock, files[config.FileExit], err)
	}
	vmm.SendAnswer(sock, nil)
	sock.Close()
	// What loading the kernel needed is not needed again.
	debug.FreeOSMemory()
	go vm.heedSignals(frame.Grace)
	return vm.finish(listener, files[config.FileExit])
}

// begin locks the process in and starts the machine.
func begin(frame vmm.Frame, files map[string]*os.File, log *slog.Logger) (*VM, net.Listener, error) {
	began := time.Now()
	seal := func() error { return nil }
	if j := frame.Jail; j != nil {
		spec := jail.Spec{UID: j.UID, GID: j.GID, Dir: j.Dir, Memlock: j.Memlock, Hostname: frame.Machine.Name, LogCalls: j.LogCalls}
		if err := jail.Enter(spec); err != nil {
			return nil, nil, err
		}
		seal = spec.Seal
	}
	locked := time.Now()
	if err := frame.Machine.Validate(); err != nil {
		return nil, nil, err
	}
	listener, err := net.FileListener(files[config.FileControl])
	if err != nil {
		return nil, nil, qverr.New(qverr.VMStart, "control socket: %w", err)
	}
	files[config.FileControl].Close()
	vm := newVM(frame.Machine, log)
	go vm.serve(listener)
	built, err := vm.start(files, seal)
	if err != nil {
		return nil, nil, err
	}
	log.Info("the VM runs", "jail", locked.Sub(began), "build", built.Sub(locked), "load", time.Since(built))
	return vm, listener, nil
}

// refuse ends a start that failed.
func refuse(log *slog.Logger, sock, report *os.File, err error) int {
	log.Error("the VM was not started", "err", err)
	if report != nil {
		writeReport(log, report, vmm.ExitReport{Status: vmm.ExitStart, Reason: vmm.ReasonStart,
			Code: qverr.CodeOf(err), Message: err.Error(), Time: time.Now().UTC(), Last: vmm.StateStarting})
	}
	vmm.SendAnswer(sock, err)
	return vmm.ExitStart
}

// finish waits for the end of the machine, says why, and takes it apart.
func (vm *VM) finish(listener io.Closer, report *os.File) int {
	<-vm.machine.Done()
	exit := vm.machine.Wait()
	r := reportOf(exit)
	r.Time, r.Resets, r.Last = time.Now().UTC(), int(vm.machine.Stats().Resets), vm.lastState()
	r.Crash = vm.crashOf(exit, r)
	writeReport(vm.log, report, r)
	vm.log.Info("the VM is over", "reason", string(r.Reason), "status", r.Status)
	vm.close(vm.log)
	listener.Close()
	return r.Status
}

func reportOf(exit machine.Exit) vmm.ExitReport {
	r := vmm.ExitReport{Status: vmm.ExitInternal, Reason: vmm.ReasonInternal, Code: qverr.Generic, Message: "the VMM failed"}
	switch exit.Reason {
	case machine.PoweredOff:
		r = vmm.ExitReport{Status: vmm.ExitGuestOff, Reason: vmm.ReasonGuestOff, Message: "the guest powered off"}
	case machine.Quit:
		r = vmm.ExitReport{Status: vmm.ExitQuit, Reason: vmm.ReasonQuit, Message: "ended on request"}
	case machine.TripleFault:
		r = vmm.ExitReport{Status: vmm.ExitTripleFault, Reason: vmm.ReasonTripleFault, Code: qverr.TripleFault,
			Message: "the guest's CPU shut down after a triple fault"}
	}
	if exit.Err != nil {
		r.Code, r.Message = qverr.CodeOf(exit.Err), exit.Err.Error()
	}
	return r
}

func writeReport(log *slog.Logger, f *os.File, r vmm.ExitReport) {
	data, err := json.Marshal(r)
	if err == nil {
		_, err = f.WriteAt(append(data, '\n'), 0)
	}
	if err != nil {
		log.Error("the last words could not be written", "err", err)
	}
}

// heedSignals makes SIGTERM the power button, and the plug after the grace period.
func (vm *VM) heedSignals(grace time.Duration) {
	signals := make(chan os.Signal, 1)
	signal.Notify(signals, unix.SIGTERM, unix.SIGINT)
	<-signals
	if err := vm.do(vmm.ActionPowerButton); err == nil {
		timer := time.NewTimer(grace)
		defer timer.Stop()
		select {
		case <-timer.C:
		case <-signals: // asked again
		case <-vm.machine.Done():
			return
		}
	}
	if err := vm.do(vmm.ActionQuit); err != nil {
		vm.log.Error("the VM does not quit", "err", err)
	}
}
