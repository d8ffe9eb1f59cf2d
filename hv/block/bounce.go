package block

import (
	"unsafe"
)

// bounceSize is how much of a request that O_DIRECT cannot take goes at once.
const bounceSize = 256 << 10

// aligned tells whether O_DIRECT, if it is on, can take the request as it is.
func (r *Raw) aligned(iov [][]byte, off int64) bool {
	if r.align == 1 {
		return true
	}
	mask := r.align - 1
	if off&int64(SectorSize-1) != 0 {
		return false
	}
	for _, b := range iov {
		if len(b) == 0 {
			continue
		}
		if len(b)&(SectorSize-1) != 0 || int(uintptr(unsafe.Pointer(&b[0])))&mask != 0 {
			return false
		}
	}
	return true
}

// withBounce calls f with aligned memory of bounceSize bytes. Such requests are
// rare, so that one at a time is enough.
func (r *Raw) withBounce(f func(buf []byte) error) error {
	r.bounceMu.Lock()
	defer r.bounceMu.Unlock()
	if r.bounce == nil {
		const pageSize = 4096
		raw := make([]byte, bounceSize+pageSize)
		skip := -int(uintptr(unsafe.Pointer(&raw[0]))) & (pageSize - 1)
		r.bounce = raw[skip : skip+bounceSize]
	}
	return f(r.bounce)
}

// window is the part of a request that one bounce covers: whole sectors around it.
func window(off, n int64) (start int64, length int, skip int) {
	start = off &^ (SectorSize - 1)
	skip = int(off - start)
	length = int(min(bounceSize, (int64(skip)+n+SectorSize-1)&^(SectorSize-1)))
	return start, length, skip
}

func (r *Raw) readBounced(iov [][]byte, off int64) error {
	return r.withBounce(func(buf []byte) error {
		for left := Length(iov); left > 0; {
			start, length, skip := window(off, left)
			if err := r.preadAll(buf[:length], start); err != nil {
				return err
			}
			n := scatter(iov, buf[skip:min(int64(length), int64(skip)+left)])
			iov, off, left = advance(iov, n), off+int64(n), left-int64(n)
		}
		return nil
	})
}

func (r *Raw) writeBounced(req *Request) error {
	iov, off := req.IOV, req.Off
	return r.withBounce(func(buf []byte) error {
		for left := Length(iov); left > 0; {
			start, length, skip := window(off, left)
			end := min(int64(length), int64(skip)+left)
			// A part of a sector: the rest of it must stay.
			if skip != 0 || end != int64(length) {
				if err := r.preadAll(buf[:length], start); err != nil {
					return err
				}
			}
			n := gather(buf[skip:end], iov)
			if err := r.do(&Request{Op: OpWrite, Durable: req.Durable, IOV: [][]byte{buf[:length]}, Off: start}); err != nil {
				return err
			}
			iov, off, left = advance(iov, n), off+int64(n), left-int64(n)
		}
		return nil
	})
}

func (r *Raw) preadAll(buf []byte, off int64) error {
	return r.do(&Request{Op: OpRead, IOV: [][]byte{buf}, Off: off})
}

func scatter(iov [][]byte, from []byte) int {
	total := 0
	for _, b := range iov {
		n := copy(b, from)
		from, total = from[n:], total+n
	}
	return total
}

func gather(into []byte, iov [][]byte) int {
	total := 0
	for _, b := range iov {
		n := copy(into, b)
		into, total = into[n:], total+n
	}
	return total
}
