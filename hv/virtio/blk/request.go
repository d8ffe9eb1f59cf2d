package blk

import (
	"encoding/binary"
	"errors"
	"fmt"

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

// errUnsupported is answered with its own status: the driver may do without.
var errUnsupported = qverr.New(qverr.Unsupported, "request is not offered")

// request is a checked header and the buffers of the data.
type request struct {
	kind   uint32
	sector uint64
	out    [][]byte // from the guest
	in     [][]byte // to the guest
}

// handle does one request. It fails only when there is no place for its status.
func (d *Device) handle(c *virtio.Chain) (uint32, error) {
	var header [headerSize]byte
	if c.CopyOut(header[:], 0) != headerSize || len(c.Write) == 0 {
		return 0, fmt.Errorf("%w: block request without header or status", virtio.ErrDriver)
	}
	last := &c.Write[len(c.Write)-1]
	status := (*last)[len(*last)-1:]
	*last = (*last)[:len(*last)-1]
	n, err := d.do(request{
		kind:   binary.LittleEndian.Uint32(header[0:]),
		sector: binary.LittleEndian.Uint64(header[8:]),
		out:    virtio.Skip(c.Read, headerSize),
		in:     c.Write,
	})
	switch {
	case err == nil:
		status[0] = statusOK
	case errors.Is(err, qverr.Unsupported), errors.Is(err, qverr.StrDiscard):
		status[0] = statusUnsupported
	default:
		status[0] = statusIOError
		d.fail(err)
	}
	return uint32(n) + 1, nil
}

// fail counts a failure, and logs it unless the one before was of the same kind:
// a guest that goes on writing to a full disk must not fill the log too.
func (d *Device) fail(err error) {
	d.Counters.Errors.Add(1)
	if code := int32(qverr.CodeOf(err)); d.failed.Swap(code) != code {
		d.opts.Log(err)
	}
}

// do returns how many bytes it wrote to r.in.
func (d *Device) do(r request) (int, error) {
	switch r.kind {
	case typeIn:
		return d.read(r)
	case typeOut:
		return 0, d.write(r)
	case typeFlush:
		d.Counters.Flushes.Add(1)
		return 0, d.disk.Flush()
	case typeGetID:
		return d.id(r), nil
	case typeDiscard, typeWriteZeroes:
		return 0, d.ranges(r)
	}
	return 0, errUnsupported
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

func (d *Device) transferRange(sector uint64, iov [][]byte) (off int64, n int, err error) {
	n = virtio.Len(iov)
	if n%block.SectorSize != 0 {
		return 0, 0, qverr.New(qverr.Inval, "transfer of %d bytes is not of whole sectors", n)
	}
	off, _, err = d.byteRange(sector, uint64(n/block.SectorSize))
	return off, n, err
}

func (d *Device) read(r request) (int, error) {
	off, n, err := d.transferRange(r.sector, r.in)
	if err != nil {
		return 0, err
	}
	if err := d.disk.ReadVec(r.in, off); err != nil {
		return 0, err
	}
	d.Counters.Reads.Add(1)
	d.Counters.ReadBytes.Add(uint64(n))
	return n, nil
}

func (d *Device) write(r request) error {
	off, n, err := d.transferRange(r.sector, r.out)
	if err != nil {
		return err
	}
	if err := d.disk.WriteVec(r.out, off); err != nil {
		return err
	}
	d.Counters.Writes.Add(1)
	d.Counters.WriteBytes.Add(uint64(n))
	return nil
}

func (d *Device) id(r request) int {
	var id [idSize]byte
	copy(id[:], d.opts.Serial)
	c := virtio.Chain{Write: r.in}
	return c.CopyIn(id[:])
}

// ranges does discard and write zeroes, whose data is a list of ranges. All of
// them are checked before the first is done.
func (d *Device) ranges(r request) error {
	if r.kind == typeDiscard && !d.opts.Discard {
		return errUnsupported
	}
	var list [maxRangeSegments * segmentSize]byte
	n := virtio.Len(r.out)
	if n == 0 || n%segmentSize != 0 || n > len(list) {
		return qverr.New(qverr.Inval, "list of ranges has %d bytes", n)
	}
	c := virtio.Chain{Read: r.out}
	c.CopyOut(list[:n], 0)
	for at := 0; at < n; at += segmentSize {
		if err := d.oneRange(r.kind, list[at:at+segmentSize], true); err != nil {
			return err
		}
	}
	for at := 0; at < n; at += segmentSize {
		if err := d.oneRange(r.kind, list[at:at+segmentSize], false); err != nil {
			return err
		}
	}
	d.Counters.Discards.Add(1)
	return nil
}

func (d *Device) oneRange(kind uint32, segment []byte, checkOnly bool) error {
	sectors := binary.LittleEndian.Uint32(segment[8:])
	flags := binary.LittleEndian.Uint32(segment[12:])
	if flags&^flagUnmap != 0 || kind == typeDiscard && flags != 0 {
		return errUnsupported // section 5.2.6.2: unknown flags
	}
	if sectors > maxRangeSectors {
		return qverr.New(qverr.Inval, "range of %d sectors: %d are possible", sectors, maxRangeSectors)
	}
	off, n, err := d.byteRange(binary.LittleEndian.Uint64(segment), uint64(sectors))
	if err != nil || checkOnly {
		return err
	}
	if kind == typeDiscard {
		return d.disk.Discard(off, n)
	}
	return d.disk.WriteZeroes(off, n, flags&flagUnmap != 0)
}
