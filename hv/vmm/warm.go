package vmm

import (
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// KeepWarm makes an empty VM and keeps it until the file is closed. While there is
// one, the kernel leaves virtualization switched on: with the first VM it has to
// switch on every CPU and patch its scheduler, and with the last one back again,
// which costs each lonely start time. (Under QEMU's TCG that patching was also seen
// to go wrong: an int3 left in finish_task_switch.)
func KeepWarm() (*os.File, error) {
	kvm, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return nil, qverr.New(qverr.NoVMX, "open /dev/kvm: %w", err)
	}
	defer kvm.Close()
	const createVM = 0xae01 // KVM_CREATE_VM
	fd, _, errno := unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), createVM, 0)
	for errno == unix.EINTR { // the runtime's preemption signal came
		fd, _, errno = unix.Syscall(unix.SYS_IOCTL, kvm.Fd(), createVM, 0)
	}
	if errno != 0 {
		return nil, qverr.New(qverr.VMCreate, "make an empty VM: %w", errno)
	}
	unix.CloseOnExec(int(fd))
	return os.NewFile(fd, "kvm-vm"), nil
}
