package vfiouser

import (
	"sync"
	"syscall"

	"golang.org/x/sys/unix"

	"quantavirt/quac100/regs"
)

// irqMSIX is the only interrupt index that the card has.
const irqMSIX = 2

// vectors are the eventfds of the MSI-X vectors.
type vectors struct {
	mu      sync.Mutex
	fd      [regs.MSIXVectors]int // plus one: 0 is none
	pending uint32                // fired while there was no eventfd
}

func (v *vectors) fire(n int) {
	if n < 0 || n >= regs.MSIXVectors {
		return
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	if v.fd[n] == 0 {
		v.pending |= 1 << n
		return
	}
	signal(v.fd[n] - 1)
}

// signal adds one to an eventfd. It can only fail once the counter is full, and then the other side has plenty to see.
func signal(fd int) {
	var one [8]byte
	ne.PutUint64(one[:], 1)
	unix.Write(fd, one[:])
}

// set does SET_IRQS. It takes the descriptors it keeps out of m.
func (v *vectors) set(s irqSet, m *message) error {
	if s.index != irqMSIX {
		if s.index < irqCount && s.count == 0 {
			return nil
		}
		return syscall.EINVAL
	}
	if s.start > regs.MSIXVectors || s.count > regs.MSIXVectors-s.start {
		return syscall.EINVAL
	}
	v.mu.Lock()
	defer v.mu.Unlock()
	switch s.flags {
	case irqNone | irqTrigger:
		if s.count == 0 {
			v.drop(0, regs.MSIXVectors)
			v.pending = 0
			return nil
		}
		v.trigger(s, nil)
	case irqBool | irqTrigger:
		if len(s.data) < int(s.count) {
			return syscall.EINVAL
		}
		v.trigger(s, s.data)
	case irqEventfd | irqTrigger:
		return v.assign(s, m)
	default: // the vectors cannot be masked: QEMU does that
		return syscall.EINVAL
	}
	return nil
}

func (v *vectors) trigger(s irqSet, only []byte) {
	for i := range int(s.count) {
		if fd := v.fd[int(s.start)+i]; fd != 0 && (only == nil || only[i] != 0) {
			signal(fd - 1)
		}
	}
}

func (v *vectors) assign(s irqSet, m *message) error {
	if len(m.fds) == 0 {
		v.drop(int(s.start), int(s.count))
		return nil
	}
	if len(m.fds) != int(s.count) {
		return syscall.EINVAL
	}
	for _, fd := range m.fds {
		if !isEventfd(fd) {
			return syscall.EINVAL
		}
	}
	v.drop(int(s.start), int(s.count))
	for i, fd := range m.take() {
		n := int(s.start) + i
		v.fd[n] = fd + 1
		if v.pending>>n&1 != 0 {
			v.pending &^= 1 << n
			signal(fd)
		}
	}
	return nil
}

func (v *vectors) drop(start, count int) {
	for n := start; n < start+count; n++ {
		if v.fd[n] != 0 {
			unix.Close(v.fd[n] - 1)
			v.fd[n] = 0
		}
	}
}

func (v *vectors) close() {
	v.mu.Lock()
	defer v.mu.Unlock()
	v.drop(0, regs.MSIXVectors)
	v.pending = 0
}
