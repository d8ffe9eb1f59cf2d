package quac100_test

import (
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"sync"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/quac100"
	"quantavirt/quac100/regs"
)

// guestBus reaches a card without VFIO, in a guest that has no IOMMU of its own: registers
// by /sys, memory in huge pages at their real addresses. Interrupts stay masked, and what
// is pending is looked for.
type guestBus struct {
	dir     string
	config  *os.File
	bar     []byte
	stop    chan struct{}
	polling sync.WaitGroup

	mu    sync.Mutex
	pages [][]byte // huge pages, for good
	free  []byte   // what is left of the last
	freed map[int][]quac100.Buffer
}

const (
	hugePage = 2 << 20

	// strayVector is a vector of the guest's CPU that no driver has: Linux says so.
	strayVector = 0xe1
)

func openGuestBus(address string) (b *guestBus, err error) {
	b = &guestBus{dir: filepath.Join("/sys/bus/pci/devices", address), stop: make(chan struct{}), freed: map[int][]quac100.Buffer{}}
	if b.config, err = os.OpenFile(filepath.Join(b.dir, "config"), os.O_RDWR, 0); err != nil {
		return nil, err
	}
	bar, err := os.OpenFile(filepath.Join(b.dir, "resource0"), os.O_RDWR|unix.O_SYNC, 0)
	if err != nil {
		return nil, err
	}
	defer bar.Close()
	b.bar, err = unix.Mmap(int(bar.Fd()), 0, regs.BARSize, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	return b, err
}

func (b *guestBus) Address() string { return filepath.Base(b.dir) }
func (b *guestBus) ReadConfig(off int64, p []byte) error {
	_, err := b.config.ReadAt(p, off)
	return err
}
func (b *guestBus) WriteConfig(off int64, p []byte) error {
	_, err := b.config.WriteAt(p, off)
	return err
}

//go:noinline
func (b *guestBus) Read32(r regs.Reg) uint32 { return *(*uint32)(unsafe.Pointer(&b.bar[r])) }

//go:noinline
func (b *guestBus) Write32(r regs.Reg, v uint32) { *(*uint32)(unsafe.Pointer(&b.bar[r])) = v }

func (b *guestBus) AllocDMA(size int) (quac100.Buffer, error) {
	b.mu.Lock()
	defer b.mu.Unlock()
	size = (size + 4095) &^ 4095
	if list := b.freed[size]; len(list) > 0 {
		b.freed[size] = list[1:]
		return list[0], nil
	}
	if len(b.free) < size {
		if size > hugePage {
			return quac100.Buffer{}, errors.New("more than a huge page")
		}
		mem, err := unix.Mmap(-1, 0, hugePage, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS|unix.MAP_HUGETLB)
		if err != nil {
			return quac100.Buffer{}, err
		}
		mem[0] = 0 // there is a page behind it now
		b.pages, b.free = append(b.pages, mem), mem
	}
	mem := b.free[:size:size]
	b.free = b.free[size:]
	address, ok := physical(mem)
	if !ok {
		return quac100.Buffer{}, errors.New("the kernel does not say where memory is")
	}
	return quac100.Buffer{Bytes: mem, IOVA: address}, nil
}

func (b *guestBus) FreeDMA(m quac100.Buffer) error {
	clear(m.Bytes)
	b.mu.Lock()
	defer b.mu.Unlock()
	b.freed[len(m.Bytes)] = append(b.freed[len(m.Bytes)], m)
	return nil
}

// Interrupts switches MSI-X on with all vectors masked, and looks at the pending bits. A
// vector whose bit is set is unmasked for a moment: that it is then delivered is what clears
// the bit.
func (b *guestBus) Interrupts(n int, handle func(vector int)) error {
	for v := range n {
		entry := regs.Reg(regs.MSIXTable + v*regs.MSIXEntry)
		b.Write32(entry+12, regs.MSIXEntryMasked)
		b.Write32(entry, 0xfee00000)
		b.Write32(entry+4, 0)
		b.Write32(entry+8, strayVector)
	}
	var control [2]byte
	binary.LittleEndian.PutUint16(control[:], regs.MSIXControlEnable)
	if err := b.WriteConfig(regs.CfgMSIXControl, control[:]); err != nil {
		return err
	}
	b.polling.Go(func() {
		tick := time.NewTicker(time.Millisecond)
		defer tick.Stop()
		for {
			select {
			case <-b.stop:
				return
			case <-tick.C:
			}
			pending := b.Read32(regs.MSIXPBA)
			for v := range n {
				if pending>>v&1 != 0 {
					entry := regs.Reg(regs.MSIXTable + v*regs.MSIXEntry)
					b.Write32(entry+12, 0)
					b.Write32(entry+12, regs.MSIXEntryMasked)
					handle(v)
				}
			}
		}
	})
	return nil
}

// Reset is a function level reset, by the guest's kernel.
func (b *guestBus) Reset() error {
	return os.WriteFile(filepath.Join(b.dir, "reset"), []byte("1"), 0)
}

func (b *guestBus) Removed() <-chan struct{} { return nil }

func (b *guestBus) Close() error {
	close(b.stop)
	b.polling.Wait()
	err := b.WriteConfig(regs.CfgMSIXControl, []byte{0, 0})
	return errors.Join(err, unix.Munmap(b.bar), b.config.Close())
}
