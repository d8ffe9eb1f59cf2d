package main

import (
	"errors"
	"fmt"
	"math/rand/v2"
	"strconv"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"
)

// iocb and ioEvent are struct iocb and struct io_event of linux/aio_abi.h.
type iocb struct {
	data   uint64
	_      [2]uint32
	opcode uint16
	_      uint16
	fd     uint32
	buf    uint64
	bytes  uint64
	offset int64
	_      uint64
	_      [2]uint32
}

type ioEvent struct {
	data, _   uint64
	result, _ int64
}

const (
	opRead  = 0 // IOCB_CMD_PREAD
	opWrite = 1 // IOCB_CMD_PWRITE
)

// diskBench reads or writes a disk past the guest's page cache, by the kernel's
// asynchronous I/O as fio would, and tells how many requests were done in which time:
//
//	bench-disk DEVICE read|write random|sequential SIZE DEPTH JOBS MILLISECONDS
//
// Each of the JOBS keeps DEPTH requests of SIZE bytes under way.
func diskBench(args []string) (string, error) {
	if len(args) != 7 {
		return "", errors.New("seven words are needed")
	}
	var n [4]int
	for i := range n {
		var err error
		if n[i], err = strconv.Atoi(args[3+i]); err != nil {
			return "", err
		}
	}
	size, depth, jobs, limit := n[0], n[1], n[2], time.Duration(n[3])*time.Millisecond
	fd, err := unix.Open("/dev/"+args[0], unix.O_RDWR|unix.O_DIRECT, 0)
	if err != nil {
		return "", err
	}
	defer unix.Close(fd)
	end, err := unix.Seek(fd, 0, unix.SEEK_END)
	if err != nil {
		return "", err
	}
	blocks := end / int64(size)
	return timed(jobs, func(job int) (int, error) {
		l := diskLoad{fd: fd, size: size, blocks: blocks, next: blocks * int64(job) / int64(jobs), random: args[2] == "random"}
		if args[1] == "write" {
			l.opcode = opWrite
		}
		return l.run(depth, limit)
	})
}

// timed runs jobs at once and adds up how much they did.
func timed(jobs int, run func(job int) (int, error)) (string, error) {
	type result struct {
		n   int
		err error
	}
	results := make(chan result)
	began := time.Now()
	for i := range jobs {
		go func() {
			n, err := run(i)
			results <- result{n, err}
		}()
	}
	total, errs := 0, error(nil)
	for range jobs {
		r := <-results
		total, errs = total+r.n, errors.Join(errs, r.err)
	}
	return fmt.Sprintf("n=%d us=%d", total, time.Since(began).Microseconds()), errs
}

// diskLoad is one job of diskBench.
type diskLoad struct {
	fd, size int
	opcode   uint16
	random   bool
	blocks   int64 // of the device
	next     int64 // block, if not random

	ring     uintptr // aio_context_t
	requests []iocb
	ready    []*iocb // not under way
	events   []ioEvent
}

// run keeps depth requests under way until the time is over, waits for the last and
// returns how many were done.
func (l *diskLoad) run(depth int, limit time.Duration) (done int, err error) {
	memory, err := unix.Mmap(-1, 0, depth*l.size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_ANON|unix.MAP_PRIVATE|unix.MAP_POPULATE)
	if err != nil {
		return 0, err
	}
	defer func() { err = errors.Join(err, unix.Munmap(memory)) }()
	if _, _, errno := unix.Syscall(unix.SYS_IO_SETUP, uintptr(depth), uintptr(unsafe.Pointer(&l.ring)), 0); errno != 0 {
		return 0, errno
	}
	defer func() { _, _, _ = unix.Syscall(unix.SYS_IO_DESTROY, l.ring, 0, 0) }()
	l.requests, l.events = make([]iocb, depth), make([]ioEvent, depth)
	for i := range l.requests {
		l.requests[i] = iocb{data: uint64(i), opcode: l.opcode, fd: uint32(l.fd), bytes: uint64(l.size),
			buf: uint64(uintptr(unsafe.Pointer(&memory[i*l.size])))}
		l.ready = append(l.ready, &l.requests[i])
	}
	under := 0
	for end := time.Now().Add(limit); ; {
		if len(l.ready) > 0 && time.Now().Before(end) {
			n, err := l.submit()
			if err != nil {
				return done, err
			}
			under += n
		}
		if under == 0 {
			return done, nil
		}
		n, err := l.reap()
		if err != nil {
			return done, err
		}
		done, under = done+n, under-n
	}
}

// submit gives the kernel all that is ready.
func (l *diskLoad) submit() (int, error) {
	for _, r := range l.ready {
		block := l.next
		if l.random {
			block = rand.Int64N(l.blocks)
		}
		l.next = (l.next + 1) % l.blocks
		r.offset = block * int64(l.size)
	}
	n, _, errno := unix.Syscall(unix.SYS_IO_SUBMIT, l.ring, uintptr(len(l.ready)), uintptr(unsafe.Pointer(&l.ready[0])))
	if errno != 0 {
		return 0, errno
	}
	if int(n) != len(l.ready) {
		return 0, fmt.Errorf("%d of %d requests were taken", n, len(l.ready))
	}
	l.ready = l.ready[:0]
	return int(n), nil
}

// reap waits for requests that are done, and makes them ready again.
func (l *diskLoad) reap() (int, error) {
	n, _, errno := unix.Syscall6(unix.SYS_IO_GETEVENTS, l.ring, 1, uintptr(len(l.events)), uintptr(unsafe.Pointer(&l.events[0])), 0, 0)
	if errno == unix.EINTR {
		return 0, nil
	}
	if errno != 0 {
		return 0, errno
	}
	for _, e := range l.events[:n] {
		if e.result != int64(l.size) {
			return 0, fmt.Errorf("a request of %d bytes gave %d", l.size, e.result)
		}
		l.ready = append(l.ready, &l.requests[e.data])
	}
	return int(n), nil
}
