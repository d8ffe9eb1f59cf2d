package quac100

import (
	"context"
	"errors"
	"fmt"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
	"quantavirt/quac100/regs"
)

// OpenVFIO brings up the card at a PCI address, which must be bound to
// vfio-pci. The errors are those of vfio.Open and of Open.
func OpenVFIO(ctx context.Context, address string, opts ...Option) (*Card, error) {
	bus, err := newVFIOBus(address)
	if err != nil {
		return nil, err
	}
	return Open(ctx, bus, opts...)
}

func newVFIOBus(address string) (*vfioBus, error) {
	dev, err := vfio.Open(address)
	if err != nil {
		return nil, fmt.Errorf("open card %s: %w", address, err)
	}
	bus := &vfioBus{dev: dev, removed: make(chan struct{})}
	if bus.bar, err = dev.MapBAR(regs.BARIndex, regs.DriverMapEnd); err != nil {
		dev.Close()
		return nil, qverr.New(qverr.QUACMMIO, "registers of card %s: %w", address, err)
	}
	if err := bus.watch(); err != nil {
		return nil, errors.Join(err, bus.Close())
	}
	return bus, nil
}

// vfioBus reaches a card through VFIO.
type vfioBus struct {
	dev     *vfio.Device
	fence   atomic.Uint32 // a locked operation on it orders memory before MMIO
	removed chan struct{}
	request *os.File // signalled when the kernel wants the card back
	events  []*os.File
	wait    sync.WaitGroup

	mapped sync.RWMutex // held for reading while a register is accessed
	bar    []byte       // nil once the bus is closed
}

// watch waits for the kernel to want the card back.
func (b *vfioBus) watch() error {
	f, fd, err := newEvent("request")
	if err != nil {
		return qverr.New(qverr.QUACInterrupt, "eventfd for the removal of card %s: %w", b.Address(), err)
	}
	b.request = f
	b.wait.Go(func() {
		var count [8]byte
		if _, err := f.Read(count[:]); err == nil {
			close(b.removed)
		}
	})
	if err := b.dev.OnRequest(fd); err != nil {
		return qverr.New(qverr.QUACInterrupt, "removal of card %s: %w", b.Address(), err)
	}
	return nil
}

// newEvent makes an eventfd that the runtime's poller waits for.
func newEvent(name string) (*os.File, int32, error) {
	fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
	if err != nil {
		return nil, -1, err
	}
	return os.NewFile(uintptr(fd), name), int32(fd), nil
}

func (b *vfioBus) Removed() <-chan struct{} { return b.removed }

func (b *vfioBus) Address() string                       { return b.dev.Address() }
func (b *vfioBus) ReadConfig(off int64, p []byte) error  { return b.dev.ReadConfig(off, p) }
func (b *vfioBus) WriteConfig(off int64, p []byte) error { return b.dev.WriteConfig(off, p) }
func (b *vfioBus) Reset() error                          { return b.dev.Reset() }

func (b *vfioBus) register(r regs.Reg) *uint32 {
	return (*uint32)(unsafe.Pointer(&b.bar[r : r+4][0]))
}

func (b *vfioBus) Read32(r regs.Reg) uint32 {
	b.mapped.RLock()
	defer b.mapped.RUnlock()
	if b.bar == nil {
		return regs.GoneWord
	}
	return atomic.LoadUint32(b.register(r))
}

func (b *vfioBus) Write32(r regs.Reg, v uint32) {
	b.mapped.RLock()
	defer b.mapped.RUnlock()
	if b.bar == nil {
		return
	}
	b.fence.Add(1)
	store32(b.register(r), v)
}

// store32 is a plain store. atomic.StoreUint32 is XCHG on amd64: as MMIO that
// is a read and a write (100 µs more through QEMU).
//
//go:noinline
func store32(p *uint32, v uint32) { *p = v }

func (b *vfioBus) AllocDMA(size int) (Buffer, error) {
	m, err := b.dev.AllocDMA(size)
	if err != nil {
		return Buffer{}, err
	}
	return Buffer{Bytes: m.Bytes, IOVA: m.IOVA}, nil
}

func (b *vfioBus) FreeDMA(m Buffer) error {
	return b.dev.FreeDMA(&vfio.Buffer{Bytes: m.Bytes, IOVA: m.IOVA})
}

// Interrupts serves each vector's eventfd by a goroutine that waits in the
// runtime's poller.
func (b *vfioBus) Interrupts(n int, handle func(vector int)) error {
	fds := make([]int32, n)
	for vector := range n {
		f, fd, err := newEvent("msix")
		if err != nil {
			return qverr.New(qverr.QUACInterrupt, "eventfd for vector %d: %w", vector, err)
		}
		b.events, fds[vector] = append(b.events, f), fd
		b.wait.Go(func() {
			var count [8]byte
			for {
				if _, err := f.Read(count[:]); err != nil {
					return
				}
				handle(vector)
			}
		})
	}
	if err := b.dev.EnableMSIX(fds); err != nil {
		return qverr.New(qverr.QUACInterrupt, "interrupts of card %s: %w", b.Address(), err)
	}
	return nil
}

func (b *vfioBus) Close() error {
	var err error
	if len(b.events) > 0 {
		err = b.dev.DisableMSIX()
	}
	for _, f := range append(b.events, b.request) {
		if f != nil {
			err = errors.Join(err, f.Close())
		}
	}
	b.wait.Wait()
	b.mapped.Lock()
	defer b.mapped.Unlock()
	b.bar = nil
	b.dev.Close()
	return err
}
