package jail

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/net/bpf"
	"golang.org/x/sys/unix"
)

// Offsets in struct seccomp_data of <linux/seccomp.h>; arguments are 64-bit,
// little-endian.
const (
	offCall = 0
	offArch = 4
	offArgs = 16
)

// action is what happens at a call that is not allowed.
type action uint32

const (
	actKill  action = unix.SECCOMP_RET_KILL_PROCESS
	actLog   action = unix.SECCOMP_RET_LOG
	actAllow action = unix.SECCOMP_RET_ALLOW
)

// program makes the filter of rules for the process pid: what no rule allows is
// denied. Calls of the x32 ABI have other numbers, so no rule allows one.
func program(rules []rule, pid int, denied action) []bpf.Instruction {
	deny := bpf.RetConstant{Val: uint32(denied)}
	code := []bpf.Instruction{
		bpf.LoadAbsolute{Off: offArch, Size: 4},
		bpf.JumpIf{Cond: bpf.JumpEqual, Val: unix.AUDIT_ARCH_X86_64, SkipTrue: 1},
		bpf.RetConstant{Val: uint32(actKill)},
		bpf.LoadAbsolute{Off: offCall, Size: 4},
	}
	for _, r := range rules {
		block := r.block(pid, deny)
		code = append(code, bpf.JumpIf{Cond: bpf.JumpEqual, Val: r.call, SkipTrue: 1}, bpf.Jump{Skip: uint32(len(block))})
		code = append(code, block...)
	}
	return append(code, deny)
}

// block decides about the one call of a rule.
func (r *rule) block(pid int, deny bpf.RetConstant) []bpf.Instruction {
	allow := bpf.RetConstant{Val: uint32(actAllow)}
	if r.when == nil {
		return []bpf.Instruction{allow}
	}
	var code []bpf.Instruction
	for i, m := range r.when {
		value := m.value
		if value == self {
			value = uint32(pid)
		}
		// The argument stays loaded for the next match unless a mask changed it.
		if i == 0 || r.when[i-1].arg != m.arg || r.when[i-1].mask != ^uint32(0) {
			code = append(code, bpf.LoadAbsolute{Off: uint32(offArgs + 8*m.arg), Size: 4})
		}
		if m.mask != ^uint32(0) {
			code = append(code, bpf.ALUOpConstant{Op: bpf.ALUOpAnd, Val: m.mask})
		}
		code = append(code, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: value, SkipTrue: 1}, allow)
	}
	return append(code, deny)
}

// sealProgram denies what only the making of a machine needs, and leaves all else
// to the filter before it.
func sealProgram(rules []rule, denied action) []bpf.Instruction {
	code := []bpf.Instruction{bpf.LoadAbsolute{Off: offCall, Size: 4}}
	for _, r := range rules {
		if r.building {
			code = append(code, bpf.JumpIf{Cond: bpf.JumpNotEqual, Val: r.call, SkipTrue: 1}, bpf.RetConstant{Val: uint32(denied)})
		}
	}
	return append(code, bpf.RetConstant{Val: uint32(actAllow)})
}

// install puts a filter over all threads, those to come included. no_new_privs
// must be set.
func install(code []bpf.Instruction) error {
	raw, err := bpf.Assemble(code)
	if err != nil {
		return fmt.Errorf("assemble: %w", err)
	}
	if len(raw) > unix.BPF_MAXINSNS {
		return fmt.Errorf("%d instructions, %d are possible", len(raw), unix.BPF_MAXINSNS)
	}
	filter := make([]unix.SockFilter, len(raw))
	for i, r := range raw {
		filter[i] = unix.SockFilter{Code: r.Op, Jt: r.Jt, Jf: r.Jf, K: r.K}
	}
	prog := unix.SockFprog{Len: uint16(len(filter)), Filter: &filter[0]}
	tid, _, errno := unix.Syscall(unix.SYS_SECCOMP, unix.SECCOMP_SET_MODE_FILTER, unix.SECCOMP_FILTER_FLAG_TSYNC,
		uintptr(unsafe.Pointer(&prog)))
	runtime.KeepAlive(filter)
	if errno != 0 {
		return errno
	}
	if tid != 0 {
		return fmt.Errorf("thread %d has a filter of its own", tid)
	}
	return nil
}
