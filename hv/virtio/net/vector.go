package net

import (
	"unsafe"

	"golang.org/x/sys/unix"
)

// maxVector is UIO_MAXIOV of Linux, less one for the byte behind the buffers.
const maxVector = 1023

// vector is the buffers of one readv or writev. It keeps its memory.
type vector struct {
	list []unix.Iovec
	size int // bytes
}

func (v *vector) reset() { v.list, v.size = v.list[:0], 0 }

// add appends buffers, none of which is empty.
func (v *vector) add(buffers [][]byte) {
	for _, b := range buffers {
		v.list = append(v.list, unix.Iovec{Base: unsafe.SliceData(b), Len: uint64(len(b))})
		v.size += len(b)
	}
}

// transfer is readv or writev.
func (v *vector) transfer(call uintptr, fd int) (int, unix.Errno) {
	for {
		n, _, errno := unix.Syscall(call, uintptr(fd), uintptr(unsafe.Pointer(unsafe.SliceData(v.list))), uintptr(len(v.list)))
		if errno != unix.EINTR {
			return int(n), errno
		}
	}
}
