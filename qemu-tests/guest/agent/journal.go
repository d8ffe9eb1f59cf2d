package main

import (
	"bytes"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"fmt"
	"hash/crc32"
	"io"
	"os"
	"sync"
	"time"
)

// journal appends records to a disk as long as the guest runs: one every pace,
// each on the disk before it is acknowledged.
//
// A record is a sector: its number at 0, the time in nanoseconds since 1970 at 8,
// a number drawn at each start of the guest at 16, all big-endian; then the number
// again and again, and in the last four bytes the CRC-32C of what is before.
type journal struct {
	disk  *os.File
	start uint64 // drawn at each start of the guest

	mu    sync.Mutex
	next  uint64 // number of the next record: so many are acknowledged
	fault error  // why no more are written
}

const (
	recordSize = 512
	recordHead = 24
	pace       = 50 * time.Millisecond
)

var castagnoli = crc32.MakeTable(crc32.Castagnoli)

// startJournal goes on behind the last record of a disk. The first record of this
// start is on it when it returns.
func startJournal(device string) *journal {
	j := &journal{}
	var start [8]byte
	if _, j.fault = rand.Read(start[:]); j.fault != nil {
		return j
	}
	j.start = binary.BigEndian.Uint64(start[:])
	if j.disk, j.fault = os.OpenFile("/dev/"+device, os.O_RDWR, 0); j.fault != nil {
		return j
	}
	found, err := scan(j.disk)
	if err != nil {
		j.fault = err
		return j
	}
	j.next = found.records
	if j.append() == nil {
		go j.run()
	}
	return j
}

func (j *journal) run() {
	tick := time.NewTicker(pace)
	defer tick.Stop()
	for range tick.C {
		if j.append() != nil {
			return
		}
	}
}

func (j *journal) append() error {
	j.mu.Lock()
	defer j.mu.Unlock()
	_, err := j.disk.WriteAt(record(j.next, j.start, time.Now()), int64(j.next)*recordSize)
	if err == nil {
		err = j.disk.Sync()
	}
	if j.fault = err; err == nil {
		j.next++
	}
	return err
}

func record(number, start uint64, now time.Time) []byte {
	r := make([]byte, 0, recordSize)
	r = binary.BigEndian.AppendUint64(r, number)
	r = binary.BigEndian.AppendUint64(r, uint64(now.UnixNano()))
	r = binary.BigEndian.AppendUint64(r, start)
	for len(r) < recordSize-4 {
		r = binary.BigEndian.AppendUint32(r, uint32(number))
	}
	return binary.BigEndian.AppendUint32(r, crc32.Checksum(r, castagnoli))
}

// acknowledged tells how many records are on the disk, for certain.
func (j *journal) acknowledged([]string) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	return fmt.Sprintf("records=%d", j.next), j.fault
}

// check reads the whole disk and verifies every record.
func (j *journal) check([]string) (string, error) {
	j.mu.Lock()
	defer j.mu.Unlock()
	if j.disk == nil {
		return "", j.fault
	}
	found, err := scan(j.disk)
	if err != nil {
		return "", err
	}
	if found.records != j.next {
		return "", fmt.Errorf("%d records are acknowledged, %d are whole", j.next, found.records)
	}
	return fmt.Sprintf("records=%d starts=%d before=%d after=%d", found.records, found.starts, found.before, found.after), j.fault
}

// found is what lies on a disk.
type found struct {
	records uint64 // from the first sector on, all whole
	starts  int    // of the guest
	// before and after are the times of the last record before the guest was
	// started the last time, and of the first after it.
	before, after int64
}

// scan reads a disk from its beginning to the end of its records, and then on:
// one behind the end means that one was lost.
func scan(disk *os.File) (f found, err error) {
	in := io.NewSectionReader(disk, 0, 1<<62)
	buf := make([]byte, 1<<20)
	var start uint64
	var last int64
	ended := false
	for sector := uint64(0); ; {
		n, err := io.ReadFull(in, buf)
		for r := buf[:n]; len(r) >= recordSize; r, sector = r[recordSize:], sector+1 {
			if !whole(r[:recordSize], sector) {
				ended = true
				continue
			}
			if ended {
				return f, fmt.Errorf("record %d is whole, and record %d before it is not", sector, f.records)
			}
			f.records++
			at := int64(binary.BigEndian.Uint64(r[8:]))
			if now := binary.BigEndian.Uint64(r[16:]); now != start {
				start, f.before, f.after = now, last, at
				f.starts++
			}
			last = at
		}
		if errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF) {
			return f, nil
		}
		if err != nil {
			return f, err
		}
	}
}

// whole tells whether a sector holds the record of a number.
func whole(r []byte, number uint64) bool {
	if binary.BigEndian.Uint64(r) != number || binary.BigEndian.Uint32(r[recordSize-4:]) != crc32.Checksum(r[:recordSize-4], castagnoli) {
		return false
	}
	want := record(number, binary.BigEndian.Uint64(r[16:]), time.Unix(0, int64(binary.BigEndian.Uint64(r[8:]))))
	return bytes.Equal(r[recordHead:], want[recordHead:])
}
