package blk

import (
	"errors"
	"testing"

	"quantavirt/hv/block"
	"quantavirt/hv/virtio"
)

// boundedDisk fails the test when it is asked for what a disk has not.
type boundedDisk struct {
	t    *testing.T
	size int64
}

func (d *boundedDisk) check(off, n int64) error {
	if off < 0 || n < 0 || off > d.size || n > d.size-off || off%block.SectorSize != 0 || n%block.SectorSize != 0 {
		d.t.Fatalf("%d bytes at %d of %d", n, off, d.size)
	}
	return nil
}

func (d *boundedDisk) ReadVec(iov [][]byte, off int64) error  { return d.check(off, block.Length(iov)) }
func (d *boundedDisk) WriteVec(iov [][]byte, off int64) error { return d.check(off, block.Length(iov)) }
func (d *boundedDisk) Flush() error                           { return nil }
func (d *boundedDisk) Discard(off, n int64) error             { return d.check(off, n) }
func (d *boundedDisk) WriteZeroes(off, n int64, _ bool) error { return d.check(off, n) }
func (d *boundedDisk) Size() int64                            { return d.size }
func (d *boundedDisk) Close() error                           { return nil }

// FuzzRequest sends any bytes as a request, cut into buffers anywhere: the disk
// never sees a range that it has not, and the status is the only byte written beside
// the data.
func FuzzRequest(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0}, uint16(16), uint16(513), uint16(100))
	f.Add([]byte{13, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 1, 0, 0, 0, 0, 0, 0, 0, 8, 0, 0, 0, 1, 0, 0, 0}, uint16(20), uint16(1), uint16(0))
	f.Fuzz(func(t *testing.T, out []byte, cut, in, cutIn uint16) {
		disk := &boundedDisk{t, 1 << 20}
		d, err := New(disk, Options{Discard: true})
		if err != nil {
			t.Fatal(err)
		}
		buf := make([]byte, in)
		r := &request{chain: virtio.Chain{Read: split(out, int(cut)), Write: split(buf, int(cutIn))}}
		if err := r.parse(); err != nil {
			if !errors.Is(err, virtio.ErrDriver) {
				t.Fatal(err)
			}
			return
		}
		if &r.status[0] != &buf[len(buf)-1] {
			t.Fatal("the status is not the last byte")
		}
		for done, err := d.prepare(r); !done && err == nil; done = !d.more(r) {
			err = block.Perform(disk, &r.io)
		}
		if r.filled >= int(in) {
			t.Fatalf("%d bytes written to %d", r.filled, in)
		}
	})
}

// split cuts b in two; the queue never makes an empty buffer.
func split(b []byte, at int) [][]byte {
	var parts [][]byte
	for _, p := range [][]byte{b[:min(at, len(b))], b[min(at, len(b)):]} {
		if len(p) > 0 {
			parts = append(parts, p)
		}
	}
	return parts
}
