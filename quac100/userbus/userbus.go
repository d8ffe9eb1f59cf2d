// Package userbus connects the driver of the card to a model behind the
// vfio-user protocol, with memory files and eventfds, as QEMU does. It is for
// tests: all that QEMU adds is missing.
package userbus

import (
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/quac100"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/vfiouser"
)

// Bus implements quac100.Bus over a connection.
type Bus struct {
	c      *vfiouser.Client
	events []*os.File
	wait   sync.WaitGroup

	mu   sync.Mutex
	lost error // the first write that did not get through
	next uint64
	fds  map[uint64]int
}

// Address implements quac100.Bus, like all that follow but New and Leaked.
func (b *Bus) Address() string                       { return "vfio-user" }
func (b *Bus) ReadConfig(off int64, p []byte) error  { return b.c.ReadConfig(uint64(off), p) }
func (b *Bus) WriteConfig(off int64, p []byte) error { return b.c.WriteConfig(uint64(off), p) }

func (b *Bus) Read32(r regs.Reg) uint32 {
	var p [4]byte
	if err := b.c.Read(uint64(r), p[:]); err != nil {
		return regs.GoneWord
	}
	return binary.LittleEndian.Uint32(p[:])
}

func (b *Bus) Write32(r regs.Reg, v uint32) {
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], v)
	if err := b.c.Write(uint64(r), p[:]); err != nil {
		b.mu.Lock()
		if b.lost == nil {
			b.lost = fmt.Errorf("write %v: %w", r, err)
		}
		b.mu.Unlock()
	}
}

func (b *Bus) AllocDMA(size int) (quac100.Buffer, error) {
	size = (size + 4095) &^ 4095
	fd, mem, err := vfiouser.NewMemfd(size)
	if err != nil {
		return quac100.Buffer{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	buf := quac100.Buffer{Bytes: mem, IOVA: b.next}
	b.next += uint64(size) + 4096
	b.fds[buf.IOVA] = fd
	return buf, b.c.MapFD(buf.IOVA, uint64(size), fd, 0, true, true)
}

func (b *Bus) FreeDMA(buf quac100.Buffer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	err := b.c.Unmap(buf.IOVA, uint64(len(buf.Bytes))) // fails when the server has left
	unix.Close(b.fds[buf.IOVA])
	delete(b.fds, buf.IOVA)
	return errors.Join(err, unix.Munmap(buf.Bytes))
}

func (b *Bus) Interrupts(n int, handle func(vector int)) error {
	if err := b.c.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80}); err != nil {
		return err
	}
	for v := range n {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "msix")
		b.events = append(b.events, f)
		if err := b.c.SetVector(v, fd); err != nil {
			return err
		}
		b.wait.Go(func() {
			var p [8]byte
			for {
				if _, err := f.Read(p[:]); err != nil {
					return
				}
				handle(v)
			}
		})
	}
	return nil
}

// Removed is closed when the server has left.
func (b *Bus) Removed() <-chan struct{} { return b.c.Done() }

// Reset does as the kernel does: the function is reset and MSI-X is as it was.
func (b *Bus) Reset() error {
	if err := b.c.WriteConfig(regs.CfgDevControl, []byte{0, 0x80}); err != nil {
		return err
	}
	return b.c.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80})
}

func (b *Bus) Close() error {
	err := b.c.DisableVectors()
	for _, f := range b.events {
		f.Close()
	}
	b.wait.Wait()
	b.mu.Lock()
	defer b.mu.Unlock()
	return errors.Join(err, b.lost)
}

// New makes the bus of a connection, which stays its caller's.
func New(c *vfiouser.Client) *Bus { return &Bus{c: c, next: 1 << 30, fds: make(map[uint64]int)} }

// Leaked counts the DMA buffers that were not freed.
func (b *Bus) Leaked() int {
	b.mu.Lock()
	defer b.mu.Unlock()
	return len(b.fds)
}
