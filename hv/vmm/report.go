package vmm

import (
	"encoding/json"
	"fmt"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"quantavirt/internal/qverr"
)

// Exit statuses of a VM process. Any other status, or a signal, means that it
// died.
const (
	ExitGuestOff    = 0  // the guest powered off
	ExitQuit        = 10 // ended by Quit, or by SIGTERM when the guest did not power off in time
	ExitTripleFault = 11 // the guest's CPU shut down
	ExitInternal    = 12 // the VMM itself failed
	ExitStart       = 13 // the machine could not be built or started
)

// Reason is why a VM process ended.
type Reason string

// The reasons, one for each exit status and one for all other ends.
const (
	ReasonGuestOff    Reason = "guest-off"
	ReasonQuit        Reason = "quit"
	ReasonTripleFault Reason = "triple-fault"
	ReasonInternal    Reason = "internal"
	ReasonStart       Reason = "start"
	ReasonDied        Reason = "died"
)

// Crashed tells whether the reason is none that operator or guest asked for.
func (r Reason) Crashed() bool { return r != ReasonGuestOff && r != ReasonQuit }

var reasonOfStatus = map[int]Reason{
	ExitGuestOff:    ReasonGuestOff,
	ExitQuit:        ReasonQuit,
	ExitTripleFault: ReasonTripleFault,
	ExitInternal:    ReasonInternal,
	ExitStart:       ReasonStart,
}

// ExitReport says how a VM process ended. It is the content of exit.json, and
// what Process.Wait returns.
type ExitReport struct {
	Status  int        `json:"status"`         // exit status; -1 if a signal ended it or it is not known
	Signal  int        `json:"signal"`         // 0 if none
	Reason  Reason     `json:"reason"`         // from the status
	Code    qverr.Code `json:"code"`           // of the catalogue, 0 for an end that was asked for
	Message string     `json:"message"`        // one sentence for people
	Time    time.Time  `json:"time"`           // when it ended
	Resets  int        `json:"resets"`         // resets of the guest until then
	Last    State      `json:"last,omitempty"` // state before the end
	// Crash is what the VM process knew when the guest or the machine failed.
	Crash *CrashReport `json:"crash,omitempty"`
}

// ExitPath is where the process called name leaves its last words.
func ExitPath(runDir, name string) string { return filepath.Join(vmDir(runDir, name), "exit.json") }

// SocketPath is the control socket of the VM called name.
func SocketPath(runDir, name string) string {
	return filepath.Join(vmDir(runDir, name), "control.sock")
}

func vmDir(runDir, name string) string { return filepath.Join(runDir, "vm", name) }

// ReadExit reads the last words of the VM called name. It fails with
// QV_ERR_NOENT when it left none: it still runs, or was killed.
func ReadExit(runDir, name string) (ExitReport, error) {
	var r ExitReport
	data, err := os.ReadFile(ExitPath(runDir, name))
	if err != nil {
		return r, qverr.New(qverr.CodeOf(err), "last words of VM %s: %w", name, err)
	}
	if len(data) == 0 {
		return r, qverr.New(qverr.NoEnt, "VM %s left no last words", name)
	}
	if err := json.Unmarshal(data, &r); err != nil {
		return r, qverr.New(qverr.IO, "last words of VM %s: %w", name, err)
	}
	return r, nil
}

// Report joins how the kernel says a process ended (from wait4, or from
// /exits of init.sock) with its last words, which may be the zero value. The
// kernel is believed where they differ: what a killed process wrote about its
// intentions does not count.
func Report(status, signal int, words ExitReport) ExitReport {
	r := words
	if r.Time.IsZero() {
		r.Time = time.Now().UTC()
	}
	same := signal == 0 && status == words.Status && words.Reason != ""
	r.Status, r.Signal = status, signal
	if signal != 0 {
		r.Status = -1
	}
	reason, known := reasonOfStatus[status]
	if signal != 0 || !known {
		reason = ReasonDied
	}
	r.Reason = reason
	if same {
		return r
	}
	r.Code, r.Message = codeOfReason[reason], messageOfEnd(status, signal, reason)
	if signal == int(syscall.SIGSYS) {
		r.Code = qverr.Perm
	}
	return r
}

var codeOfReason = map[Reason]qverr.Code{
	ReasonTripleFault: qverr.TripleFault,
	ReasonInternal:    qverr.Generic,
	ReasonStart:       qverr.VMStart,
	ReasonDied:        qverr.Generic,
}

func messageOfEnd(status, signal int, reason Reason) string {
	switch {
	case signal == int(syscall.SIGSYS):
		return "the VM process was ended by the kernel: it made a system call that its jail forbids"
	case signal != 0:
		return fmt.Sprintf("the VM process was ended by signal %d (%s)", signal, syscall.Signal(signal))
	case reason == ReasonGuestOff:
		return "the guest powered off"
	case reason == ReasonQuit:
		return "ended on request"
	case reason == ReasonTripleFault:
		return "the guest's CPU shut down after a triple fault"
	case reason == ReasonStart:
		return "the machine could not be started"
	case reason == ReasonInternal:
		return "the VM process failed"
	case status < 0:
		return "the VM process ended; how is not known"
	}
	return fmt.Sprintf("the VM process died with status %d", status)
}
