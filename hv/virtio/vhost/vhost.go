// Package vhost hands virtqueues to the kernel's vhost workers
// (linux/vhost.h): what vhost-net and vhost-vsock have in common.
package vhost

import (
	"errors"
	"fmt"
	"os"
	"runtime"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
)

// ioctl numbers of linux/vhost.h.
const (
	getFeatures  = 0x8008af00
	setFeatures  = 0x4008af00
	setOwner     = 0xaf01
	setMemTable  = 0x4008af03
	setVringNum  = 0x4008af10
	setVringAddr = 0x4028af11
	setVringBase = 0x4008af12
	setVringKick = 0x4008af20
	setVringCall = 0x4008af21
)

// Dev is an open /dev/vhost-* that this process owns.
type Dev struct {
	file     *os.File
	features uint64
}

type vringState struct{ index, num uint32 }

type vringFile struct {
	index uint32
	fd    int32
}

type vringAddr struct {
	index, flags           uint32
	desc, used, avail, log uint64
}

// Open makes this process the owner of file, whose worker will run in the
// process's cgroup, and tells the kernel where guest memory is. It takes the file over.
func Open(file *os.File, mem *memory.Memory) (*Dev, error) {
	d := &Dev{file: file}
	if err := d.own(); err != nil {
		return nil, fmt.Errorf("own %s: %w", file.Name(), err)
	}
	if err := d.Ioctl(getFeatures, unsafe.Pointer(&d.features)); err != nil {
		return nil, fmt.Errorf("features of %s: %w", file.Name(), err)
	}
	if err := d.setMemory(mem); err != nil {
		return nil, fmt.Errorf("guest memory for %s: %w", file.Name(), err)
	}
	return d, nil
}

// own has the kernel clone its worker from the calling thread. While a signal is
// pending there, clone gives up, and vhost_task_create (seen in Linux 6.12) makes
// an ENOMEM of it, which no caller could tell from the real one. Go's runtime sends
// its threads signals at any time; so the thread takes none meanwhile.
func (d *Dev) own() (err error) {
	runtime.LockOSThread()
	defer runtime.UnlockOSThread()
	var all, before unix.Sigset_t
	for i := range all.Val {
		all.Val[i] = ^all.Val[i]
	}
	if err := unix.PthreadSigmask(unix.SIG_SETMASK, &all, &before); err != nil {
		return fmt.Errorf("block signals: %w", err)
	}
	defer func() { err = errors.Join(err, unix.PthreadSigmask(unix.SIG_SETMASK, &before, nil)) }()
	return d.Ioctl(setOwner, nil)
}

// Features are the virtio feature bits that the kernel's worker knows.
func (d *Dev) Features() uint64 { return d.features }

// Close gives the device back; its worker ends.
func (d *Dev) Close() error { return d.file.Close() }

// Ioctl is an ioctl of the device; arg may be nil.
func (d *Dev) Ioctl(request uintptr, arg unsafe.Pointer) error {
	_, _, errno := unix.Syscall(unix.SYS_IOCTL, d.file.Fd(), request, uintptr(arg))
	if errno != 0 {
		return errno
	}
	return nil
}

func (d *Dev) setMemory(mem *memory.Memory) error {
	type region struct{ gpa, size, hva, flags uint64 }
	const maxRegions = 8
	var table struct {
		count, padding uint32
		regions        [maxRegions]region
	}
	for i, r := range mem.Regions() {
		if i == maxRegions {
			return fmt.Errorf("more than %d regions", maxRegions)
		}
		table.regions[i] = region{gpa: r.GPA, size: r.Size, hva: address(r.Data)}
		table.count++
	}
	return d.Ioctl(setMemTable, unsafe.Pointer(&table))
}

// SetFeatures tells the worker what the driver accepted, as far as it concerns it.
func (d *Dev) SetFeatures(accepted uint64) error {
	v := accepted & d.features
	if err := d.Ioctl(setFeatures, unsafe.Pointer(&v)); err != nil {
		return fmt.Errorf("set features %#x of %s: %w", v, d.file.Name(), err)
	}
	return nil
}

// SetQueue gives the worker queue q as its vring index, to begin at its start.
func (d *Dev) SetQueue(index uint32, q *virtio.Queue, mem *memory.Memory) error {
	addr := vringAddr{index: index}
	for _, part := range []struct {
		into *uint64
		gpa  uint64
	}{{&addr.desc, q.Layout.Desc}, {&addr.avail, q.Layout.Avail}, {&addr.used, q.Layout.Used}} {
		// NewQueue checked all of each ring; its first byte gives the address.
		s, err := mem.Slice(part.gpa, 1)
		if err != nil {
			return err
		}
		*part.into = address(s)
	}
	num := vringState{index, uint32(q.Size())}
	base := vringState{index, 0}
	kick := vringFile{index, int32(q.Kick.FD())}
	call := vringFile{index, int32(q.InterruptFD)}
	for _, step := range []struct {
		name    string
		request uintptr
		arg     unsafe.Pointer
	}{
		{"size", setVringNum, unsafe.Pointer(&num)},
		{"start", setVringBase, unsafe.Pointer(&base)},
		{"addresses", setVringAddr, unsafe.Pointer(&addr)},
		{"interrupt", setVringCall, unsafe.Pointer(&call)},
		{"kick", setVringKick, unsafe.Pointer(&kick)},
	} {
		if err := d.Ioctl(step.request, step.arg); err != nil {
			return fmt.Errorf("%s of queue %d of %s: %w", step.name, index, d.file.Name(), err)
		}
	}
	return nil
}

// address is where b is in this process. Guest memory is not Go's: it does not move.
func address(b []byte) uint64 { return uint64(uintptr(unsafe.Pointer(&b[0]))) }
