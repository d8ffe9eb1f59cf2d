package vfio

import (
	"fmt"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"
)

// Requests of include/uapi/linux/vfio.h: _IO(';', 100 + n).
const (
	reqGetAPIVersion    = ';'<<8 + 100
	reqCheckExtension   = ';'<<8 + 101
	reqSetIOMMU         = ';'<<8 + 102
	reqGroupGetStatus   = ';'<<8 + 103
	reqGroupSetCont     = ';'<<8 + 104
	reqGroupGetDeviceFD = ';'<<8 + 106
	reqDeviceGetInfo    = ';'<<8 + 107
	reqDeviceGetRegion  = ';'<<8 + 108
	reqDeviceSetIRQs    = ';'<<8 + 110
	reqDeviceReset      = ';'<<8 + 111
	reqHotReset         = ';'<<8 + 113
	reqMapDMA           = ';'<<8 + 113
	reqUnmapDMA         = ';'<<8 + 114
)

const (
	apiVersion = 0
	type1v2    = 3

	groupViable = 1

	deviceFlagReset = 1
	deviceFlagPCI   = 2

	dmaRead  = 1
	dmaWrite = 2

	irqDataNone    = 1
	irqDataEventFD = 4
	irqTrigger     = 32

	// Region and interrupt indices of a PCI device.
	regionConfig = 7
	irqMSI       = 1
	irqMSIX      = 2
	irqError     = 3
	irqRequest   = 4

	regionMMap = 4
)

type groupStatus struct{ argsz, flags uint32 }

type deviceInfo struct{ argsz, flags, regions, irqs, capOffset, pad uint32 }

type regionInfo struct {
	argsz, flags, index, capOffset uint32
	size, offset                   uint64
}

type mapDMA struct {
	argsz, flags        uint32
	vaddr, iova, length uint64
}

type unmapDMA struct {
	argsz, flags uint32
	iova, length uint64
}

func ioctl(fd int, req uintptr, arg uintptr) (int, error) {
	for {
		n, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), req, arg)
		if errno == unix.EINTR {
			continue
		}
		if errno != 0 {
			return 0, errno
		}
		return int(n), nil
	}
}

func ioctlPtr(fd int, req uintptr, arg unsafe.Pointer) (int, error) {
	n, err := ioctl(fd, req, uintptr(arg))
	runtime.KeepAlive(arg)
	return n, err
}

// setIRQs is VFIO_DEVICE_SET_IRQS with one eventfd for each vector from 0;
// none switches the interrupts off.
func setIRQs(fd int, index uint32, eventfds []int32) error {
	buf := make([]uint32, 5+len(eventfds))
	buf[0] = uint32(len(buf) * 4)
	buf[1] = irqDataEventFD | irqTrigger
	if len(eventfds) == 0 {
		buf[1] = irqDataNone | irqTrigger
	}
	buf[2], buf[3], buf[4] = index, 0, uint32(len(eventfds))
	for i, e := range eventfds {
		buf[5+i] = uint32(e)
	}
	n, err := ioctlPtr(fd, reqDeviceSetIRQs, unsafe.Pointer(&buf[0]))
	if err != nil {
		return fmt.Errorf("VFIO_DEVICE_SET_IRQS: %w", err)
	}
	if n > 0 { // that many could be had, and none were taken
		return fmt.Errorf("VFIO_DEVICE_SET_IRQS: %d of %d vectors are left: %w", n, len(eventfds), unix.ENOSPC)
	}
	return nil
}
