package vfio

import (
	"sync"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Device is an open PCI device. Its methods may be called from several
// goroutines, except Close.
type Device struct {
	address   string
	container int
	group     int
	fd        int
	canReset  bool
	config    regionInfo
	bars      [6]regionInfo

	mu     sync.Mutex
	mapped [][]byte // BAR mappings
	space  iovaSpace
}

// Open takes the device at a PCI address (0000:00:05.0), which must be bound to
// vfio-pci. Errors: NoIOMMU without an IOMMU group, NoDev for no such device,
// Busy when somebody else holds the group or a neighbour in it is bound to
// another driver, Perm when the IOMMU cannot remap interrupts.
func Open(address string) (*Device, error) {
	group, err := GroupOf(address)
	if err != nil {
		return nil, err
	}
	d := &Device{address: address, container: -1, group: -1, fd: -1, space: newIOVASpace()}
	if err := d.open(group); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Device) open(group string) error {
	var err error
	if d.container, err = openContainer(); err != nil {
		return err
	}
	if d.group, err = openGroup(group, d.address); err != nil {
		return err
	}
	if err := join(d.container, d.group, group); err != nil {
		return err
	}
	if err := setIOMMU(d.container, group); err != nil {
		return err
	}
	return d.openDevice()
}

func (d *Device) openDevice() (err error) {
	if d.fd, err = deviceFD(d.group, d.address); err != nil {
		return err
	}
	return d.identify()
}

// identify asks the open device what it is.
func (d *Device) identify() (err error) {
	info := deviceInfo{argsz: uint32(unsafe.Sizeof(deviceInfo{}))}
	if _, err := ioctlPtr(d.fd, reqDeviceGetInfo, unsafe.Pointer(&info)); err != nil {
		return qverr.New(qverr.IO, "VFIO information on %s: %w", d.address, err)
	}
	if info.flags&deviceFlagPCI == 0 {
		return qverr.New(qverr.NoDev, "%s is no PCI device to VFIO", d.address)
	}
	d.canReset = info.flags&deviceFlagReset != 0
	for i := range d.bars {
		if d.bars[i], err = d.region(uint32(i)); err != nil {
			return err
		}
	}
	d.config, err = d.region(regionConfig)
	return err
}

func (d *Device) region(index uint32) (regionInfo, error) {
	r := regionInfo{argsz: uint32(unsafe.Sizeof(regionInfo{})), index: index}
	if _, err := ioctlPtr(d.fd, reqDeviceGetRegion, unsafe.Pointer(&r)); err != nil {
		return r, qverr.New(qverr.IO, "VFIO region %d of %s: %w", index, d.address, err)
	}
	return r, nil
}

// Address returns the PCI address.
func (d *Device) Address() string { return d.address }

// ReadConfig fills p from the configuration space at off (bytes).
func (d *Device) ReadConfig(off int64, p []byte) error {
	n, err := unix.Pread(d.fd, p, int64(d.config.offset)+off)
	if err != nil || n != len(p) {
		return qverr.New(qverr.IO, "read configuration space of %s at %#x: %d bytes, %w", d.address, off, n, err)
	}
	return nil
}

// WriteConfig writes p into the configuration space at off (bytes).
func (d *Device) WriteConfig(off int64, p []byte) error {
	n, err := unix.Pwrite(d.fd, p, int64(d.config.offset)+off)
	if err != nil || n != len(p) {
		return qverr.New(qverr.IO, "write configuration space of %s at %#x: %d bytes, %w", d.address, off, n, err)
	}
	return nil
}

// MapBAR maps the first length bytes of a BAR (0 to 5). The page that holds the
// MSI-X table need not be mappable, so length may be less than the BAR's size.
// The mapping goes with Close.
func (d *Device) MapBAR(bar uint32, length int) ([]byte, error) {
	return d.MapRegion(int(bar), 0, length)
}

// Region is one BAR, or another range, of a device.
type Region struct {
	Size   uint64 // bytes, 0 when there is none
	Mapped bool   // MapRegion may map it
}

// Region tells of a BAR (0 to 5).
func (d *Device) Region(bar int) Region {
	return Region{d.bars[bar].size, d.bars[bar].flags&regionMMap != 0}
}

// MapRegion maps length bytes at off of a BAR (0 to 5), both whole pages. The mapping
// goes with Close.
func (d *Device) MapRegion(bar int, off uint64, length int) ([]byte, error) {
	r := &d.bars[bar]
	if off > r.size || uint64(length) > r.size-off {
		return nil, qverr.New(qverr.Inval, "BAR %d of %s has %#x bytes, cannot map %#x at %#x", bar, d.address, r.size, length, off)
	}
	m, err := unix.Mmap(d.fd, int64(r.offset+off), length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, qverr.New(qverr.IO, "map BAR %d of %s: %w", bar, d.address, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mapped = append(d.mapped, m)
	return m, nil
}

// ReadRegion reads 1, 2, 4 or 8 bytes at off of a BAR (0 to 5) by a system call.
func (d *Device) ReadRegion(bar int, off uint64, p []byte) error {
	if n, err := unix.Pread(d.fd, p, int64(d.bars[bar].offset+off)); err != nil || n != len(p) {
		return qverr.New(qverr.IO, "read BAR %d of %s at %#x: %d bytes, %w", bar, d.address, off, n, err)
	}
	return nil
}

// WriteRegion writes 1, 2, 4 or 8 bytes at off of a BAR (0 to 5) by a system call.
func (d *Device) WriteRegion(bar int, off uint64, p []byte) error {
	if n, err := unix.Pwrite(d.fd, p, int64(d.bars[bar].offset+off)); err != nil || n != len(p) {
		return qverr.New(qverr.IO, "write BAR %d of %s at %#x: %d bytes, %w", bar, d.address, off, n, err)
	}
	return nil
}

// EnableMSIX makes the device's vectors 0 to len(eventfds)-1 signal eventfds.
func (d *Device) EnableMSIX(eventfds []int32) error {
	if err := setIRQs(d.fd, irqMSIX, eventfds); err != nil {
		return qverr.New(qverr.NoDev, "MSI-X of %s: %w", d.address, err)
	}
	return nil
}

// DisableMSIX switches the interrupts off.
func (d *Device) DisableMSIX() error { return d.EnableMSIX(nil) }

// EnableMSI makes the device's messages 0 to len(eventfds)-1 signal eventfds; none
// switches them off.
func (d *Device) EnableMSI(eventfds []int32) error {
	if err := setIRQs(d.fd, irqMSI, eventfds); err != nil {
		return qverr.New(qverr.NoDev, "MSI of %s: %w", d.address, err)
	}
	return nil
}

// OnError makes the kernel signal an eventfd when the device reports an error that it
// cannot correct (PCI Express advanced error reporting). QV_ERR_NODEV when it has no
// such reports.
func (d *Device) OnError(eventfd int32) error {
	if err := setIRQs(d.fd, irqError, []int32{eventfd}); err != nil {
		return qverr.New(qverr.NoDev, "error reports of %s: %w", d.address, err)
	}
	return nil
}

// OnRequest makes the kernel signal an eventfd when it wants the device back, as it
// is unplugged or given to another driver. It waits until the device is closed.
func (d *Device) OnRequest(eventfd int32) error {
	if err := setIRQs(d.fd, irqRequest, []int32{eventfd}); err != nil {
		return qverr.New(qverr.NoDev, "ask to be told when %s is wanted back: %w", d.address, err)
	}
	return nil
}

// CanReset tells whether Reset can.
func (d *Device) CanReset() bool { return d.canReset }

// Reset resets the function (FLR where the device has it). DMA mappings stay.
func (d *Device) Reset() error {
	if !d.canReset {
		return qverr.New(qverr.Unsupported, "%s cannot be reset by itself", d.address)
	}
	if _, err := ioctl(d.fd, reqDeviceReset, 0); err != nil {
		return qverr.New(qverr.IO, "reset %s: %w", d.address, err)
	}
	return nil
}

// Close gives everything back: mappings, interrupts, the group.
func (d *Device) Close() {
	for _, m := range d.mapped {
		_ = unix.Munmap(m)
	}
	d.mapped = nil
	for _, fd := range []*int{&d.fd, &d.group, &d.container} {
		if *fd >= 0 {
			_ = unix.Close(*fd)
			*fd = -1
		}
	}
}
