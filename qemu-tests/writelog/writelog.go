// Package writelog reads the log of all writes to a disk that QEMU's filter
// blklogwrites keeps, and makes of a disk what it was after any of them. The form is
// that of the kernel's dm-log-writes (drivers/md/dm-log-writes.c, struct
// log_write_super and log_write_entry):
//
//	sector 0   u64 magic, u64 version 1, u64 number of entries, u32 sector size
//	then each  u64 sector, u64 sectors, u64 flags, u64 length of what follows if it is a mark,
//	           filled up to a sector, and the sectors that were written
//
// All numbers are little endian. The number of entries in the first sector lags behind
// and is not used, so that a log can be read while it grows.
package writelog

import (
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"

	"golang.org/x/sys/unix"
)

const (
	magic      = 0x6a736677736872
	version    = 1
	superSize  = 28
	headerSize = 32
)

// Flags of an entry.
const (
	Flush   = 1 << 0 // what was written before is on the disk
	FUA     = 1 << 1
	Discard = 1 << 2
	mark    = 1 << 3
)

const known = Flush | FUA | Discard | mark | 1<<4 // the last: metadata

// ErrFormat says that something is no log, or not one of this disk.
var ErrFormat = errors.New("writelog: not a log of writes to this disk")

// Entry is a write, a discard or a flush, in bytes.
type Entry struct {
	Offset, Size int64 // on the disk
	Flags        uint64

	data int64 // where the log has it
	end  int64
}

// Log is what was written to a disk, in order.
type Log struct {
	Entries []Entry
	from    io.ReaderAt
}

// Read reads the entries of a log of size bytes about a disk of disk bytes. One that
// is not complete at the end, as the log still grows, is left out.
func Read(from io.ReaderAt, size, disk int64) (*Log, error) {
	head := make([]byte, superSize)
	if _, err := from.ReadAt(head, 0); err != nil {
		return nil, fmt.Errorf("%w: its beginning: %w", ErrFormat, err)
	}
	le := binary.LittleEndian
	sector := int64(le.Uint32(head[24:]))
	if le.Uint64(head) != magic || le.Uint64(head[8:]) != version || sector < 512 || sector > 1<<20 || sector&(sector-1) != 0 {
		return nil, fmt.Errorf("%w: its first sector says % x", ErrFormat, head)
	}
	l := &Log{from: from}
	for at := sector; at+sector <= size; {
		e, err := readEntry(from, at, sector, disk)
		if err != nil {
			return nil, err
		}
		if e.end > size || e == (Entry{data: e.data, end: e.end}) { // not there yet
			break
		}
		at = e.end
		if e.Flags&mark == 0 {
			l.Entries = append(l.Entries, e)
		}
	}
	return l, nil
}

func readEntry(from io.ReaderAt, at, sector, disk int64) (Entry, error) {
	head := make([]byte, headerSize)
	if _, err := from.ReadAt(head, at); err != nil {
		return Entry{}, fmt.Errorf("writelog: at %d: %w", at, err)
	}
	le := binary.LittleEndian
	first, count, flags, length := le.Uint64(head), le.Uint64(head[8:]), le.Uint64(head[16:]), le.Uint64(head[24:])
	limit := uint64(disk / sector)
	if flags&^known != 0 || first > limit || count > limit-first || length > 1<<20 {
		return Entry{}, fmt.Errorf("%w: at %d: %d sectors at %d, flags %#x, on a disk of %d", ErrFormat, at, count, first, flags, limit)
	}
	e := Entry{Offset: int64(first) * sector, Size: int64(count) * sector, Flags: flags, data: at + sector}
	e.end = e.data
	switch {
	case flags&mark != 0:
		e.end += (int64(length) + sector - 1) / sector * sector
	case flags&Discard == 0:
		e.end += e.Size
	}
	return e, nil
}

// Before is how many entries lie in the first size bytes of the log.
func (l *Log) Before(size int64) int {
	n := 0
	for n < len(l.Entries) && l.Entries[n].end <= size {
		n++
	}
	return n
}

// Apply does to a disk what the entries from, inclusive, to to, exclusive, did. What
// was discarded reads as zeroes, as it does under QEMU.
func (l *Log) Apply(disk *os.File, from, to int) error {
	if from < 0 || to > len(l.Entries) || from > to {
		return fmt.Errorf("writelog: apply %d to %d of %d entries", from, to, len(l.Entries))
	}
	for i, e := range l.Entries[from:to] {
		var err error
		switch {
		case e.Size == 0:
		case e.Flags&Discard != 0:
			err = unix.Fallocate(int(disk.Fd()), unix.FALLOC_FL_PUNCH_HOLE|unix.FALLOC_FL_KEEP_SIZE, e.Offset, e.Size)
		default:
			_, err = io.Copy(io.NewOffsetWriter(disk, e.Offset), io.NewSectionReader(l.from, e.data, e.Size))
		}
		if err != nil {
			return fmt.Errorf("writelog: apply entry %d: %w", from+i, err)
		}
	}
	return nil
}

// Cuts are at most n numbers of entries after which the power may be cut, spread
// over those from, exclusive, to to, inclusive, that want picks; ascending.
func (l *Log) Cuts(from, to, n int, want func(Entry) bool) []int {
	var all []int
	for i := max(from, 0); i < min(to, len(l.Entries)); i++ {
		if want(l.Entries[i]) {
			all = append(all, i+1)
		}
	}
	if len(all) <= n {
		return all
	}
	cuts := make([]int, n)
	for i := range cuts { // the middles of n equal parts
		cuts[i] = all[(2*i+1)*len(all)/(2*n)]
	}
	return cuts
}
