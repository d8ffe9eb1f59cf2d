package vfio

import (
	"errors"
	"os"
	"path/filepath"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

const devices = "/sys/bus/pci/devices"

// GroupOf is the IOMMU group of a PCI function. NoDev when there is no such function,
// NoIOMMU when it is in no group.
func GroupOf(address string) (string, error) {
	link, err := os.Readlink(filepath.Join(devices, address, "iommu_group"))
	if errors.Is(err, os.ErrNotExist) {
		if _, statErr := os.Stat(filepath.Join(devices, address)); statErr != nil {
			return "", qverr.New(qverr.NoDev, "no PCI device %s: %w", address, statErr)
		}
		return "", qverr.New(qverr.NoIOMMU, "PCI device %s is in no IOMMU group", address)
	}
	if err != nil {
		return "", qverr.New(qverr.IO, "IOMMU group of %s: %w", address, err)
	}
	return filepath.Base(link), nil
}

func openContainer() (int, error) {
	fd, err := unix.Open("/dev/vfio/vfio", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return -1, qverr.New(qverr.NoIOMMU, "open /dev/vfio/vfio: %w", err)
	}
	if v, err := ioctl(fd, reqGetAPIVersion, 0); err != nil || v != apiVersion {
		_ = unix.Close(fd)
		return -1, qverr.New(qverr.Version, "VFIO API version %d, want %d", v, apiVersion)
	}
	if v, err := ioctl(fd, reqCheckExtension, type1v2); err != nil || v != 1 {
		_ = unix.Close(fd)
		return -1, qverr.New(qverr.NoIOMMU, "VFIO has no type 1 version 2 IOMMU driver")
	}
	return fd, nil
}

// openGroup opens the group of the function at address.
func openGroup(group, address string) (int, error) {
	fd, err := unix.Open("/dev/vfio/"+group, unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		code := qverr.NoDev
		if errors.Is(err, unix.EBUSY) {
			code = qverr.Busy
		}
		return -1, qverr.New(code, "open IOMMU group %s of %s: %w", group, address, err)
	}
	status := groupStatus{argsz: 8}
	if _, err := ioctlPtr(fd, reqGroupGetStatus, unsafe.Pointer(&status)); err != nil {
		_ = unix.Close(fd)
		return -1, qverr.New(qverr.IO, "status of IOMMU group %s: %w", group, err)
	}
	if status.flags&groupViable == 0 {
		_ = unix.Close(fd)
		return -1, qverr.New(qverr.Busy, "IOMMU group %s of %s is not viable: another device of the group is bound to a host driver", group, address)
	}
	return fd, nil
}

func join(container, group int, name string) error {
	arg := int32(container)
	if _, err := ioctlPtr(group, reqGroupSetCont, unsafe.Pointer(&arg)); err != nil {
		return qverr.New(qverr.Busy, "put IOMMU group %s into a container: %w", name, err)
	}
	return nil
}

func setIOMMU(container int, group string) error {
	_, err := ioctl(container, reqSetIOMMU, type1v2)
	if errors.Is(err, unix.EPERM) {
		return qverr.New(qverr.Perm, "set the IOMMU of group %s: %w", group, err).
			WithHint("the IOMMU offers no interrupt remapping: enable it in the firmware (VT-d interrupt remapping, x2APIC)")
	}
	if err != nil {
		return qverr.New(qverr.NoIOMMU, "set the IOMMU of group %s: %w", group, err)
	}
	return nil
}

// deviceFD opens a function of an open group. The kernel resets it where it can.
func deviceFD(group int, address string) (int, error) {
	name, err := unix.BytePtrFromString(address)
	if err != nil {
		return -1, qverr.New(qverr.Inval, "PCI address %q: %w", address, err)
	}
	fd, err := ioctlPtr(group, reqGroupGetDeviceFD, unsafe.Pointer(name))
	if err != nil {
		return -1, qverr.New(qverr.NoDev, "open %s through VFIO: %w", address, err)
	}
	unix.CloseOnExec(fd)
	return fd, nil
}

// Assignment is what another process needs in order to use functions: the container,
// in which all their groups are, and each function. The files keep the groups.
type Assignment struct {
	Container *os.File
	Devices   []*os.File // in the order of the addresses
}

// Close closes the files; what was passed on stays open.
func (a *Assignment) Close() error {
	err := a.Container.Close()
	for _, f := range a.Devices {
		err = errors.Join(err, f.Close())
	}
	return err
}

// Assign opens functions that are bound to vfio-pci, in one container, and resets
// those that can only be reset together with all of their bus. The errors are those of
// Open.
func Assign(addresses []string) (a *Assignment, err error) {
	container, err := openContainer()
	if err != nil {
		return nil, err
	}
	a = &Assignment{Container: os.NewFile(uintptr(container), "vfio-container")}
	groups := map[string]int{}
	defer func() {
		for _, fd := range groups {
			_ = unix.Close(fd)
		}
		if err != nil {
			_ = a.Close()
		}
	}()
	for _, address := range addresses {
		name, err := GroupOf(address)
		if err != nil {
			return nil, err
		}
		if _, open := groups[name]; open {
			continue
		}
		fd, err := openGroup(name, address)
		if err != nil {
			return nil, err
		}
		groups[name] = fd
		if err := join(container, fd, name); err != nil {
			return nil, err
		}
		if len(groups) == 1 {
			if err := setIOMMU(container, name); err != nil {
				return nil, err
			}
		}
	}
	for _, address := range addresses {
		name, _ := GroupOf(address)
		fd, err := deviceFD(groups[name], address)
		if err != nil {
			return nil, err
		}
		a.Devices = append(a.Devices, os.NewFile(uintptr(fd), address))
	}
	return a, a.resetBuses(addresses, groups)
}

// resetBuses resets what cannot be reset by itself, as far as the kernel allows: only
// where all functions behind the same bridge are the caller's.
func (a *Assignment) resetBuses(addresses []string, groups map[string]int) error {
	for i, f := range a.Devices {
		info := deviceInfo{argsz: uint32(unsafe.Sizeof(deviceInfo{}))}
		if _, err := ioctlPtr(int(f.Fd()), reqDeviceGetInfo, unsafe.Pointer(&info)); err != nil {
			return qverr.New(qverr.IO, "VFIO information on %s: %w", addresses[i], err)
		}
		if info.flags&deviceFlagReset != 0 {
			continue
		}
		arg := []uint32{0, 0, 0}
		for _, fd := range groups {
			arg = append(arg, uint32(fd))
			arg[2]++
		}
		arg[0] = uint32(len(arg) * 4)
		if _, err := ioctlPtr(int(f.Fd()), reqHotReset, unsafe.Pointer(&arg[0])); err != nil {
			return qverr.New(qverr.Unsupported, "%s cannot be reset, neither by itself nor with its bus: %w", addresses[i], err).
				WithHint("give the VM all functions behind the same bridge, or use a device that has function level reset")
		}
	}
	return nil
}

// Inherited is a function that another process has opened (Assign). Its memory is
// mapped by a Container; AllocDMA is not for it.
func Inherited(address string, f *os.File) (*Device, error) {
	fd, err := unix.FcntlInt(f.Fd(), unix.F_DUPFD_CLOEXEC, 0)
	if err != nil {
		return nil, qverr.New(qverr.IO, "descriptor of %s: %w", address, err)
	}
	d := &Device{address: address, container: -1, group: -1, fd: fd}
	if err := d.identify(); err != nil {
		d.Close()
		return nil, err
	}
	return d, nil
}

// Container is the address space of functions that belong to one owner.
type Container struct{ file *os.File }

// NewContainer uses the container of an Assignment, which stays the caller's.
func NewContainer(f *os.File) *Container { return &Container{f} }

// Map lets the functions read and write mem, whole pages, at iova. The pages are pinned
// and count against RLIMIT_MEMLOCK. NoMem when the limit or memory is exhausted, Inval
// when the machine keeps the addresses for itself.
func (c *Container) Map(iova uint64, mem []byte) error {
	m := mapDMA{flags: dmaRead | dmaWrite, vaddr: uint64(uintptr(unsafe.Pointer(&mem[0]))), iova: iova, length: uint64(len(mem))}
	m.argsz = uint32(unsafe.Sizeof(m))
	_, err := ioctlPtr(int(c.file.Fd()), reqMapDMA, unsafe.Pointer(&m))
	switch {
	case err == nil:
		return nil
	case errors.Is(err, unix.EINVAL), errors.Is(err, unix.EEXIST):
		return qverr.New(qverr.Inval, "map %#x bytes of memory for DMA at %#x: the machine keeps some of these addresses for itself: %w", len(mem), iova, err)
	}
	return qverr.New(qverr.NoMem, "map %#x bytes of memory for DMA (is RLIMIT_MEMLOCK high enough?): %w", len(mem), err)
}
