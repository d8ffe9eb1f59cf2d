package vfio

import (
	"errors"
	"os"
	"path/filepath"
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

	mu     sync.Mutex
	mapped [][]byte // BAR mappings
	space  iovaSpace
}

// Open takes the device at a PCI address (0000:00:05.0), which must be bound to
// vfio-pci. Errors: NoIOMMU without an IOMMU group, NoDev for no such device,
// Busy when somebody else holds the group or a neighbour in it is bound to
// another driver, Perm when the IOMMU cannot remap interrupts.
func Open(address string) (*Device, error) {
	link, err := os.Readlink(filepath.Join("/sys/bus/pci/devices", address, "iommu_group"))
	if errors.Is(err, os.ErrNotExist) {
		if _, statErr := os.Stat(filepath.Join("/sys/bus/pci/devices", address)); statErr != nil {
			return nil, qverr.New(qverr.NoDev, "no PCI device %s: %w", address, statErr)
		}
		return nil, qverr.New(qverr.NoIOMMU, "PCI device %s is in no IOMMU group", address)
	}
	if err != nil {
		return nil, qverr.New(qverr.IO, "IOMMU group of %s: %w", address, err)
	}
	d := &Device{address: address, container: -1, group: -1, fd: -1, space: newIOVASpace()}
	if err := d.open(filepath.Base(link)); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

func (d *Device) open(group string) error {
	var err error
	if d.container, err = unix.Open("/dev/vfio/vfio", unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		return qverr.New(qverr.NoIOMMU, "open /dev/vfio/vfio: %w", err)
	}
	if v, err := ioctl(d.container, reqGetAPIVersion, 0); err != nil || v != apiVersion {
		return qverr.New(qverr.Version, "VFIO API version %d, want %d", v, apiVersion)
	}
	if v, err := ioctl(d.container, reqCheckExtension, type1v2); err != nil || v != 1 {
		return qverr.New(qverr.NoIOMMU, "VFIO has no type 1 version 2 IOMMU driver")
	}
	if d.group, err = unix.Open("/dev/vfio/"+group, unix.O_RDWR|unix.O_CLOEXEC, 0); err != nil {
		code := qverr.NoDev
		if errors.Is(err, unix.EBUSY) {
			code = qverr.Busy
		}
		return qverr.New(code, "open IOMMU group %s of %s: %w", group, d.address, err)
	}
	status := groupStatus{argsz: 8}
	if _, err := ioctlPtr(d.group, reqGroupGetStatus, unsafe.Pointer(&status)); err != nil {
		return qverr.New(qverr.IO, "status of IOMMU group %s: %w", group, err)
	}
	if status.flags&groupViable == 0 {
		return qverr.New(qverr.Busy, "IOMMU group %s of %s is not viable: another device of the group is bound to a host driver", group, d.address)
	}
	container := int32(d.container)
	if _, err := ioctlPtr(d.group, reqGroupSetCont, unsafe.Pointer(&container)); err != nil {
		return qverr.New(qverr.Busy, "put IOMMU group %s into a container: %w", group, err)
	}
	if _, err := ioctl(d.container, reqSetIOMMU, type1v2); err != nil {
		if errors.Is(err, unix.EPERM) {
			return qverr.New(qverr.Perm, "set the IOMMU of group %s: %w", group, err).
				WithHint("the IOMMU offers no interrupt remapping: enable it in the firmware (VT-d interrupt remapping, x2APIC)")
		}
		return qverr.New(qverr.NoIOMMU, "set the IOMMU of group %s: %w", group, err)
	}
	return d.openDevice()
}

func (d *Device) openDevice() error {
	name, err := unix.BytePtrFromString(d.address)
	if err != nil {
		return qverr.New(qverr.Inval, "PCI address %q: %w", d.address, err)
	}
	if d.fd, err = ioctlPtr(d.group, reqGroupGetDeviceFD, unsafe.Pointer(name)); err != nil {
		d.fd = -1
		return qverr.New(qverr.NoDev, "open %s through VFIO: %w", d.address, err)
	}
	unix.CloseOnExec(d.fd)
	info := deviceInfo{argsz: uint32(unsafe.Sizeof(deviceInfo{}))}
	if _, err := ioctlPtr(d.fd, reqDeviceGetInfo, unsafe.Pointer(&info)); err != nil {
		return qverr.New(qverr.IO, "VFIO information on %s: %w", d.address, err)
	}
	if info.flags&deviceFlagPCI == 0 {
		return qverr.New(qverr.NoDev, "%s is no PCI device to VFIO", d.address)
	}
	d.canReset = info.flags&deviceFlagReset != 0
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
	r, err := d.region(bar)
	if err != nil {
		return nil, err
	}
	if uint64(length) > r.size {
		return nil, qverr.New(qverr.Inval, "BAR %d of %s has %d bytes, cannot map %d", bar, d.address, r.size, length)
	}
	m, err := unix.Mmap(d.fd, int64(r.offset), length, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
	if err != nil {
		return nil, qverr.New(qverr.IO, "map BAR %d of %s: %w", bar, d.address, err)
	}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.mapped = append(d.mapped, m)
	return m, nil
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

// OnRequest makes the kernel signal an eventfd when it wants the device back, as it
// is unplugged or given to another driver. It waits until the device is closed.
func (d *Device) OnRequest(eventfd int32) error {
	if err := setIRQs(d.fd, irqRequest, []int32{eventfd}); err != nil {
		return qverr.New(qverr.NoDev, "ask to be told when %s is wanted back: %w", d.address, err)
	}
	return nil
}

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
