package vmm_test

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// bridgeIoctl makes the bridge of the tests, or makes a device its port.
func bridgeIoctl(fd int, request uintptr, ifindex int) error {
	var req struct {
		name  [unix.IFNAMSIZ]byte
		index int32
		_     [20]byte
	}
	copy(req.name[:], bridgeName)
	req.index = int32(ifindex)
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(unsafe.Pointer(&req))); errno != 0 {
		return errno
	}
	return nil
}
