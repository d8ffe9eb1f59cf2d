package vmm

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"slices"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

// StartFD is the descriptor at which a VM process finds its end of the socketpair.
const StartFD = 3

const (
	frameVersion = 1
	maxFrame     = 128 << 10
	maxFiles     = 253 // SCM_MAX_FD of Linux
)

// Frame is the one message that starts a VM process. The descriptors that come
// with it are in the order of Files.
type Frame struct {
	Version int            `json:"version"`
	Machine config.Machine `json:"machine"`
	Files   []string       `json:"files"`
	Jail    *Jail          `json:"jail,omitempty"` // nil: no jail (hv run)
	// Grace is how long the guest has after SIGTERM to power off.
	Grace time.Duration `json:"grace_ns"`
}

// Jail is how the VM process locks itself in.
type Jail struct {
	UID uint32 `json:"uid"`
	GID uint32 `json:"gid"`
	// Dir is any directory; the new root is mounted over it, in a mount
	// namespace that nobody else has.
	Dir string `json:"dir"`
	// Memlock is the RLIMIT_MEMLOCK to have, in bytes.
	Memlock uint64 `json:"memlock"`
	// LogCalls has forbidden system calls logged instead of ending the process.
	LogCalls bool `json:"log_calls,omitempty"`
}

// answer is what the VM process sends back.
type answer struct {
	OK    bool           `json:"ok"`
	Code  qverr.Code     `json:"code,omitempty"`
	Msg   string         `json:"message,omitempty"`
	Extra map[string]any `json:"details,omitempty"`
}

// StartPair makes the two ends of a start channel.
func StartPair() (ours, theirs *os.File, err error) {
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_SEQPACKET|unix.SOCK_CLOEXEC, 0)
	if err != nil {
		return nil, nil, qverr.New(qverr.CodeOf(err), "start channel: %w", err)
	}
	return os.NewFile(uintptr(fds[0]), "start"), os.NewFile(uintptr(fds[1]), "start-vm"), nil
}

// SendFrame sends f with its files, which stay open here. f.Files is filled in.
func SendFrame(sock *os.File, f Frame, files map[string]*os.File) error {
	f.Version = frameVersion
	f.Files = f.Files[:0]
	for name := range files {
		f.Files = append(f.Files, name)
	}
	slices.Sort(f.Files)
	if len(f.Files) > maxFiles {
		return qverr.New(qverr.Limit, "%d descriptors for VM %s: %d are possible", len(f.Files), f.Machine.Name, maxFiles)
	}
	fds := make([]int, len(f.Files))
	for i, name := range f.Files {
		fds[i] = int(files[name].Fd())
	}
	data, err := json.Marshal(f)
	if err != nil {
		return qverr.New(qverr.Inval, "start frame: %w", err)
	}
	if len(data) > maxFrame {
		return qverr.New(qverr.Limit, "start frame of %d bytes: %d are possible", len(data), maxFrame)
	}
	if err := unix.Sendmsg(int(sock.Fd()), data, unix.UnixRights(fds...), nil, unix.MSG_NOSIGNAL); err != nil {
		return qverr.New(qverr.CodeOf(err), "send the start frame: %w", err)
	}
	return nil
}

// ReceiveFrame reads the frame and its files, and checks that all descriptors
// that it and its machine name are there and no others.
func ReceiveFrame(sock *os.File) (Frame, map[string]*os.File, error) {
	var f Frame
	data, err := frameBuffer(int(sock.Fd()))
	if err != nil {
		return f, nil, qverr.New(qverr.CodeOf(err), "receive the start frame: %w", err)
	}
	oob := make([]byte, unix.CmsgSpace(4*maxFiles))
	n, oobn, flags, _, err := recvmsg(int(sock.Fd()), data, oob)
	if err != nil {
		return f, nil, qverr.New(qverr.CodeOf(err), "receive the start frame: %w", err)
	}
	fds, err := parseRights(oob[:oobn])
	if err != nil {
		return f, nil, qverr.New(qverr.Inval, "start frame: %w", err)
	}
	files, err := parseFrame(&f, data[:n], flags, fds)
	if err != nil {
		for _, fd := range fds {
			unix.Close(fd)
		}
		return f, nil, err
	}
	return f, files, nil
}

func parseFrame(f *Frame, data []byte, flags int, fds []int) (map[string]*os.File, error) {
	if len(data) == 0 {
		return nil, qverr.New(qverr.State, "the daemon went away before it sent the start frame: %w", io.ErrUnexpectedEOF)
	}
	if flags&(unix.MSG_TRUNC|unix.MSG_CTRUNC) != 0 {
		return nil, qverr.New(qverr.Limit, "start frame or its descriptors were cut (flags %#x)", flags)
	}
	if err := json.Unmarshal(data, f); err != nil {
		return nil, qverr.New(qverr.Inval, "start frame: %w", err)
	}
	if f.Version != frameVersion {
		return nil, qverr.New(qverr.Version, "start frame has version %d, this is version %d", f.Version, frameVersion)
	}
	if len(fds) != len(f.Files) {
		return nil, qverr.New(qverr.Inval, "start frame names %d descriptors, %d came", len(f.Files), len(fds))
	}
	if err := checkNames(f); err != nil {
		return nil, err
	}
	files := make(map[string]*os.File, len(fds))
	for i, name := range f.Files {
		files[name] = os.NewFile(uintptr(fds[i]), name)
	}
	return files, nil
}

func checkNames(f *Frame) error {
	need := append(f.Machine.Files(), config.FileKVM, config.FileControl, config.FileExit)
	for i, name := range f.Files {
		if slices.Contains(f.Files[:i], name) {
			return qverr.New(qverr.Inval, "start frame names descriptor %q twice", name)
		}
		if !slices.Contains(need, name) {
			return qverr.New(qverr.Inval, "descriptor %q came and nothing uses it", name)
		}
	}
	for _, name := range need {
		if !slices.Contains(f.Files, name) {
			return qverr.New(qverr.Inval, "descriptor %q is missing", name)
		}
	}
	return nil
}

func parseRights(oob []byte) ([]int, error) {
	messages, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return nil, err
	}
	var fds []int
	for _, m := range messages {
		rights, err := unix.ParseUnixRights(&m)
		if err != nil {
			return fds, err
		}
		fds = append(fds, rights...)
	}
	return fds, nil
}

// frameBuffer waits for a message and makes room for it, as most are a thousandth
// of what they may be: to touch all of that costs a start as much as the rest of it.
func frameBuffer(fd int) ([]byte, error) {
	for {
		n, _, err := unix.Recvfrom(fd, nil, unix.MSG_PEEK|unix.MSG_TRUNC)
		if err == nil {
			return make([]byte, min(n, maxFrame)), nil
		}
		if !errors.Is(err, unix.EINTR) {
			return nil, err
		}
	}
}

func recvmsg(fd int, data, oob []byte) (n, oobn, flags int, from unix.Sockaddr, err error) {
	for {
		n, oobn, flags, from, err = unix.Recvmsg(fd, data, oob, unix.MSG_CMSG_CLOEXEC)
		if !errors.Is(err, unix.EINTR) {
			return n, oobn, flags, from, err
		}
	}
}

// SendAnswer tells the daemon how the start went. A daemon that is gone is no
// reason to stop: the next one adopts the VM.
func SendAnswer(sock *os.File, failure error) {
	a := answer{OK: failure == nil}
	if e := qverr.From(failure); e != nil {
		a.Code, a.Msg, a.Extra = e.Code, failure.Error(), e.Details
	}
	data, err := json.Marshal(a)
	if err != nil {
		data = fmt.Appendf(nil, `{"code":%d,"message":"the start failed"}`, a.Code)
	}
	_ = unix.Sendmsg(int(sock.Fd()), data, nil, nil, unix.MSG_NOSIGNAL)
}

// receiveAnswer waits for the answer. io.EOF means that the process ended
// without one.
func receiveAnswer(sock *os.File) error {
	data, err := frameBuffer(int(sock.Fd()))
	n := 0
	if err == nil {
		n, _, _, _, err = recvmsg(int(sock.Fd()), data, nil)
	}
	if errors.Is(err, unix.ECONNRESET) {
		return io.EOF // it did not even read the frame
	}
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "answer of the VM process: %w", err)
	}
	if n == 0 {
		return io.EOF
	}
	var a answer
	if err := json.Unmarshal(data[:n], &a); err != nil {
		return qverr.New(qverr.IO, "answer of the VM process: %w", err)
	}
	if a.OK {
		return nil
	}
	e := qverr.New(a.Code, "%s", a.Msg)
	e.Details = a.Extra
	return e
}
