package kvm

import (
	"errors"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Numbers of <linux/kvm.h>: direction, argument size, 0xAE and number.
const (
	ioGetAPIVersion     = 0xae00
	ioCreateVM          = 0xae01
	ioCheckExtension    = 0xae03
	ioGetVCPUMmapSize   = 0xae04
	ioGetSupportedCPUID = 0xc008ae05
	ioCreateVCPU        = 0xae41
	ioSetMemoryRegion   = 0x4020ae46
	ioSetTSSAddr        = 0xae47
	ioSetIdentityMap    = 0x4008ae48
	ioCreateIRQChip     = 0xae60
	ioIRQLine           = 0x4008ae61
	ioSetGSIRouting     = 0x4008ae6a
	ioIRQFD             = 0x4020ae76
	ioCreatePIT2        = 0x4040ae77
	ioIOEventFD         = 0x4040ae79
	ioSetClock          = 0x4030ae7b
	ioEnableCap         = 0x4068aea3
	ioGetClock          = 0x8030ae7c
	ioRun               = 0xae80
	ioGetRegs           = 0x8090ae81
	ioSetRegs           = 0x4090ae82
	ioGetSregs          = 0x8138ae83
	ioSetSregs          = 0x4138ae84
	ioGetMSRs           = 0xc008ae88
	ioSetMSRs           = 0x4008ae89
	ioGetLAPIC          = 0x8400ae8e
	ioSetLAPIC          = 0x4400ae8f
	ioSetCPUID2         = 0x4008ae90
	ioGetMPState        = 0x8004ae98
	ioSetMPState        = 0x4004ae99
	ioNMI               = 0xae9a
	ioGetTSCKHz         = 0xaea3
	ioKVMClockCtrl      = 0xaead
	ioPreFaultMemory    = 0xc040aed5
)

// ioctl retries what a signal interrupted: no call but KVM_RUN, which does not
// come through here, means anything by EINTR.
func ioctl(fd int, request, arg uintptr) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, arg)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
}

func ioctlPtr(fd int, request uintptr, arg unsafe.Pointer) error {
	_, err := ioctlCount(fd, request, arg)
	return err
}

// ioctlCount is for calls that take a pointer and return a number.
func ioctlCount(fd int, request uintptr, arg unsafe.Pointer) (int, error) {
	for {
		r, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), request, uintptr(arg))
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(r), nil
	}
}

// fail gives err the code of the failed call; being out of memory, out of
// descriptors or not permitted is more to the point than that.
func fail(code qverr.Code, what string, err error) error {
	switch {
	case errors.Is(err, unix.ENOMEM) && code == qverr.VMCreate:
		code = qverr.NoMem
	case errors.Is(err, unix.EMFILE), errors.Is(err, unix.ENFILE):
		code = qverr.Limit
	case errors.Is(err, unix.EPERM), errors.Is(err, unix.EACCES):
		code = qverr.Perm
	}
	return qverr.New(code, "KVM: %s: %w", what, err)
}
