package blk

import (
	"encoding/binary"
	"errors"
	"testing"

	"quantavirt/hv/block"
	"quantavirt/hv/memory"
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

// FuzzChain has any bytes be the rings, descriptors, indirect tables and buffers of a
// queue: whatever they say, each request is answered once, or the driver is told that
// it broke the queue, and nothing outside of guest memory is touched.
func FuzzChain(f *testing.F) {
	const size, desc, avail, used, entries = 64 << 10, 0, 0x100, 0x200, 16
	mem, err := memory.New(size)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { mem.Close() })
	f.Add(goodChain(false), true)
	f.Add(goodChain(true), true)
	f.Fuzz(func(t *testing.T, content []byte, indirect bool) {
		if err := errors.Join(mem.Zero(0, size), mem.WriteAt(content[:min(len(content), size)], 0)); err != nil {
			t.Fatal(err)
		}
		features := virtio.FeatureEventIdx
		if indirect {
			features |= virtio.FeatureIndirect
		}
		vq, err := virtio.NewQueue(mem, virtio.Layout{Size: entries, Desc: desc, Avail: avail, Used: used}, features)
		if err != nil {
			t.Fatal(err)
		}
		disk := &boundedDisk{t, 1 << 20}
		d, err := New(disk, Options{Discard: true})
		if err != nil {
			t.Fatal(err)
		}
		var r request
		for n := range entries + 1 {
			ok, err := vq.Pop(&r.chain)
			if ok {
				err = r.parse()
			}
			if err != nil && !errors.Is(err, virtio.ErrDriver) {
				t.Fatal(err)
			}
			if !ok || err != nil {
				return
			}
			// A device that writes where the rings are can make the guest's nonsense
			// look like more requests, but not more than fit at once.
			if n == entries {
				return
			}
			for done, err := d.prepare(&r); !done && err == nil; done = !d.more(&r) {
				err = block.Perform(disk, &r.io)
			}
			r.status[0] = statusOK
			vq.Push(&r.chain, uint32(r.filled)+1)
			vq.NeedsInterrupt()
			vq.EnableKick()
		}
	})
}

// goodChain is the memory of a queue with a read, directly or by an indirect table.
func goodChain(indirect bool) []byte {
	m := make([]byte, 0x2000)
	le := binary.LittleEndian
	put := func(at int, addr uint64, n uint32, flags, next uint16) {
		le.PutUint64(m[at:], addr)
		le.PutUint32(m[at+8:], n)
		le.PutUint16(m[at+12:], flags)
		le.PutUint16(m[at+14:], next)
	}
	table := 0
	if indirect {
		table = 0x400
		put(0, 0x400, 48, 4, 0)
	}
	put(table, 0x300, 16, 1, 1)
	put(table+16, 0x1000, 512, 3, 2)
	put(table+32, 0x310, 1, 2, 0)
	le.PutUint16(m[0x102:], 1)
	return m
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
