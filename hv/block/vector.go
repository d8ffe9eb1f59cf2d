package block

import (
	"errors"
	"io"
	"unsafe"

	"golang.org/x/sys/unix"
)

// vector is a request's buffers in the kernel's form, and how much of them is through.
// Its memory is used again by the next request.
type vector struct {
	iov  []unix.Iovec
	at   int   // the first that is not through
	done int64 // bytes that are through
	left int64
}

// fill takes the buffers over.
func (v *vector) fill(iov [][]byte) {
	*v = vector{iov: v.iov[:0]}
	for _, b := range iov {
		if len(b) > 0 {
			v.iov = append(v.iov, unix.Iovec{Base: &b[0], Len: uint64(len(b))})
			v.left += int64(len(b))
		}
	}
}

// advance drops the first n bytes: the kernel may do less than it was asked.
func (v *vector) advance(n int64) {
	v.done, v.left = v.done+n, v.left-n
	for v.at < len(v.iov) && uint64(n) >= v.iov[v.at].Len {
		n -= int64(v.iov[v.at].Len)
		v.at++
	}
	if n > 0 {
		first := &v.iov[v.at]
		first.Base = (*byte)(unsafe.Add(unsafe.Pointer(first.Base), n))
		first.Len -= uint64(n)
	}
}

// next is what one system call takes.
func (v *vector) next() []unix.Iovec { return v.iov[v.at:min(len(v.iov), v.at+maxVec)] }

// transferVec is one preadv2 or pwritev2 without an allocation: those of package unix
// make their own vector.
func transferVec(call uintptr, fd int, iov []unix.Iovec, off int64, flags int) (int64, error) {
	n, _, errno := unix.Syscall6(call, uintptr(fd), uintptr(unsafe.Pointer(&iov[0])), uintptr(len(iov)), uintptr(off), 0, uintptr(flags))
	if errno != 0 {
		return 0, errno
	}
	return int64(n), nil
}

// do does a read or write that was checked and that O_DIRECT can take.
func (r *Raw) do(req *Request) error {
	call, flags := uintptr(unix.SYS_PREADV2), 0
	if req.Op == OpWrite {
		call, flags = unix.SYS_PWRITEV2, r.writeFlags(req)
	}
	v := &req.vec
	for v.fill(req.IOV); v.left > 0; {
		n, err := transferVec(call, r.fd, v.next(), req.Off+v.done, flags)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err == nil && n == 0 {
			err = io.ErrUnexpectedEOF // the file was cut while in use
		}
		if err != nil {
			return r.transferError(req, err)
		}
		v.advance(n)
	}
	return nil
}

func (r *Raw) writeFlags(req *Request) int {
	if r.sync || req.Durable {
		return unix.RWF_DSYNC
	}
	return 0
}

func (r *Raw) transferError(req *Request, err error) error {
	what := "read"
	if req.Op == OpWrite {
		what = "write"
	}
	return storageError(err, "%s %d bytes at %d of disk %s", what, req.vec.left, req.Off+req.vec.done, r.file.Name())
}

// check refuses what a read or write may not do; transfers only.
func (r *Raw) check(req *Request) error {
	if req.Op == OpWrite {
		if err := r.writable(); err != nil {
			return err
		}
	}
	return checkRange(req.Off, Length(req.IOV), r.size)
}
