package volume

import (
	"bytes"
	"context"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

// listen sends a value for each kernel event about a block device. The channel
// closes when ctx ends.
func listen(ctx context.Context) (<-chan struct{}, error) {
	fd, err := unix.Socket(unix.AF_NETLINK, unix.SOCK_RAW|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, unix.NETLINK_KOBJECT_UEVENT)
	if err != nil {
		return nil, err
	}
	if err := unix.Bind(fd, &unix.SockaddrNetlink{Family: unix.AF_NETLINK, Groups: 1}); err != nil {
		_ = unix.Close(fd)
		return nil, err
	}
	socket := os.NewFile(uintptr(fd), "uevent")
	context.AfterFunc(ctx, func() { _ = socket.SetReadDeadline(time.Unix(1, 0)) })
	events := make(chan struct{}, 1)
	go func() {
		defer close(events)
		defer socket.Close()
		buf := make([]byte, 16<<10)
		for {
			n, err := socket.Read(buf)
			if err != nil {
				return
			}
			if bytes.Contains(buf[:n], []byte("\x00SUBSYSTEM=block\x00")) {
				select {
				case events <- struct{}{}:
				default: // one look is enough for several events
				}
			}
		}
	}()
	return events, nil
}
