package volume

import (
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"strconv"
	"unsafe"

	"golang.org/x/sys/unix"
)

// A hub's own word about its ports (USB 2.0, section 11.24.2.7; USB 3.2, 10.16.2.6).
const (
	getStatus      = 0
	ofPort         = 0xa3 // device to host, class, other
	portConnection = 1 << 0
)

// controlTransfer is usbdevfs_ctrltransfer of <linux/usbdevice_fs.h>.
type controlTransfer struct {
	requestType, request uint8
	value, index, length uint16
	timeout              uint32 // ms
	data                 unsafe.Pointer
}

const (
	usbControl = 0xc0185500 // USBDEVFS_CONTROL
	askTime    = 500        // ms
)

// connections asks a hub, by the directory of its device in sysfs, which of its ports have
// something connected, whether the kernel has come to see it or not. The root hub of a
// controller is asked by the same request, which the kernel answers from its registers.
func connections(device string, ports []int) (map[int]bool, error) {
	bus, err1 := strconv.Atoi(word(filepath.Join(device, "busnum")))
	number, err2 := strconv.Atoi(word(filepath.Join(device, "devnum")))
	if err1 != nil || err2 != nil {
		return nil, fmt.Errorf("%s has no number", device)
	}
	f, err := os.OpenFile(fmt.Sprintf("/dev/bus/usb/%03d/%03d", bus, number), os.O_RDWR, 0)
	if err != nil {
		return nil, err
	}
	defer f.Close()
	connected := make(map[int]bool)
	for _, port := range ports {
		var status [4]byte
		c := controlTransfer{requestType: ofPort, request: getStatus, index: uint16(port), length: uint16(len(status)), timeout: askTime,
			data: unsafe.Pointer(&status[0])}
		_, _, errno := unix.Syscall(unix.SYS_IOCTL, f.Fd(), usbControl, uintptr(unsafe.Pointer(&c)))
		runtime.KeepAlive(&status)
		if errno != 0 {
			return nil, fmt.Errorf("status of port %d of %s: %w", port, device, errno)
		}
		connected[port] = binary.LittleEndian.Uint16(status[:])&portConnection != 0
	}
	return connected, nil
}
