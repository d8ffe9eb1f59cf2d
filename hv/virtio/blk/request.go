package blk

import (
	"encoding/binary"
	"fmt"
	"time"

	"quantavirt/hv/block"
	"quantavirt/hv/virtio"
	"quantavirt/internal/qverr"
)

// Request types, section 5.2.6.
const (
	typeIn          = 0
	typeOut         = 1
	typeFlush       = 4
	typeGetID       = 8
	typeDiscard     = 11
	typeWriteZeroes = 13
)

const (
	headerSize  = 16
	segmentSize = 16
	flagUnmap   = 1
)

// Status of a request.
const (
	statusOK          = 0
	statusIOError     = 1
	statusUnsupported = 2
)

// Errors that cost nothing, however many a guest provokes.
var (
	errUnsupported = qverr.New(qverr.Unsupported, "request is not offered")
	errNoStatus    = fmt.Errorf("%w: block request without header or status", virtio.ErrDriver)
)

// request is one request of the guest. It is used again and again, with the memory of
// its slices.
type request struct {
	chain  virtio.Chain
	status []byte // one byte of guest memory
	kind   uint32
	sector uint64
	out    [][]byte // data from the guest
	in     [][]byte // data to the guest
	bytes  int      // that a read or write moves
	filled int      // bytes that were written to in
	began  time.Time

	io block.Request
	// list and at are the ranges of a discard, which are done one after the other.
	list       [maxRangeSegments * segmentSize]byte
	ranges, at int
}

// parse reads the header. It fails only when there is no place for a status.
func (r *request) parse() error {
	c := &r.chain
	var header [headerSize]byte
	if c.CopyOut(header[:], 0) != headerSize || len(c.Write) == 0 {
		return errNoStatus
	}
	last := &c.Write[len(c.Write)-1]
	r.status = (*last)[len(*last)-1:]
	*last = (*last)[:len(*last)-1]
	r.kind = binary.LittleEndian.Uint32(header[0:])
	r.sector = binary.LittleEndian.Uint64(header[8:])
	r.out, r.in = virtio.Skip(c.Read, headerSize), c.Write
	r.bytes, r.filled, r.ranges, r.at = 0, 0, 0, 0
	switch r.kind {
	case typeIn:
		r.bytes = virtio.Len(r.in)
	case typeOut:
		r.bytes = virtio.Len(r.out)
	}
	return nil
}

// prepare makes r.io of the request, or answers it: done says that there is nothing
// left to do but to give it back, with err.
func (d *Device) prepare(r *request) (done bool, err error) {
	switch r.kind {
	case typeIn:
		return d.prepareTransfer(r, block.OpRead, r.in)
	case typeOut:
		return d.prepareTransfer(r, block.OpWrite, r.out)
	case typeFlush:
		r.ask(block.OpFlush, 0, 0)
		return false, nil
	case typeGetID:
		r.filled = d.id(r)
		return true, nil
	case typeDiscard, typeWriteZeroes:
		return d.prepareRanges(r)
	}
	return true, errUnsupported
}

// ask sets the operation; those of transfers and zeroes have more.
func (r *request) ask(op block.Op, off, n int64) {
	io := &r.io
	io.Op, io.Off, io.N, io.IOV, io.Durable, io.Unmap, io.Err = op, off, n, nil, false, false, nil
}

// byteRange checks a range of sectors before it becomes one of bytes: neither
// product may wrap.
func (d *Device) byteRange(sector, sectors uint64) (off, n int64, err error) {
	capacity := uint64(d.disk.Size()) / block.SectorSize
	if sector > capacity || sectors > capacity-sector {
		return 0, 0, qverr.New(qverr.Inval, "%d sectors at %d of a disk with %d", sectors, sector, capacity)
	}
	return int64(sector) * block.SectorSize, int64(sectors) * block.SectorSize, nil
}

func (d *Device) prepareTransfer(r *request, op block.Op, iov [][]byte) (done bool, err error) {
	if r.bytes%block.SectorSize != 0 {
		return true, qverr.New(qverr.Inval, "transfer of %d bytes is not of whole sectors", r.bytes)
	}
	off, n, err := d.byteRange(r.sector, uint64(r.bytes/block.SectorSize))
	if err != nil {
		return true, err
	}
	r.ask(op, off, n)
	r.io.IOV, r.io.Durable = iov, op == block.OpWrite && d.durable.Load()
	return false, nil
}

func (d *Device) id(r *request) int {
	var id [idSize]byte
	copy(id[:], d.opts.Serial)
	c := virtio.Chain{Write: r.in}
	return c.CopyIn(id[:])
}

// prepareRanges does discard and write zeroes, whose data is a list of ranges. All of
// them are checked before the first is done.
func (d *Device) prepareRanges(r *request) (done bool, err error) {
	if r.kind == typeDiscard && !d.opts.Discard {
		return true, errUnsupported
	}
	n := virtio.Len(r.out)
	if n == 0 || n%segmentSize != 0 || n > len(r.list) {
		return true, qverr.New(qverr.Inval, "list of ranges has %d bytes", n)
	}
	c := virtio.Chain{Read: r.out}
	c.CopyOut(r.list[:n], 0)
	r.ranges = n / segmentSize
	for r.at = range r.ranges {
		if err := d.prepareRange(r); err != nil {
			return true, err
		}
	}
	r.at = 0
	return false, d.prepareRange(r)
}

// prepareRange makes r.io of the range at r.at.
func (d *Device) prepareRange(r *request) error {
	segment := r.list[r.at*segmentSize:][:segmentSize]
	sectors := binary.LittleEndian.Uint32(segment[8:])
	flags := binary.LittleEndian.Uint32(segment[12:])
	if flags&^flagUnmap != 0 || r.kind == typeDiscard && flags != 0 {
		return errUnsupported // section 5.2.6.2: unknown flags
	}
	if sectors > maxRangeSectors {
		return qverr.New(qverr.Inval, "range of %d sectors: %d are possible", sectors, maxRangeSectors)
	}
	off, n, err := d.byteRange(binary.LittleEndian.Uint64(segment), uint64(sectors))
	if err != nil {
		return err
	}
	if r.kind == typeDiscard {
		r.ask(block.OpDiscard, off, n)
		return nil
	}
	r.ask(block.OpWriteZeroes, off, n)
	r.io.Unmap, r.io.Durable = flags&flagUnmap != 0, d.durable.Load()
	return nil
}

// more prepares what is left of a request of which a part was done.
func (d *Device) more(r *request) bool {
	if r.at++; r.at >= r.ranges {
		return false
	}
	r.io.Err = d.prepareRange(r) // as it did before: the list is our copy
	return r.io.Err == nil
}

// count adds a request that was done to the counters.
func (c *counters) count(r *request) {
	switch r.kind {
	case typeIn:
		c.reads.Add(1)
		c.readBytes.Add(uint64(r.bytes))
	case typeOut:
		c.writes.Add(1)
		c.writeBytes.Add(uint64(r.bytes))
	case typeFlush:
		c.flushes.Add(1)
	case typeDiscard, typeWriteZeroes:
		c.discards.Add(1)
	}
}
