package process

import (
	"encoding/binary"
	"io"
	"net"
	"os"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/vsock"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

func (vm *VM) addVsock(files map[string]*os.File) error {
	cfg := vm.cfg.Vsock
	switch {
	case cfg == nil:
		return nil
	case cfg.Vhost != "":
		dev, err := vsock.New(cfg.CID, files[cfg.Vhost], vm.machine.Memory())
		if err != nil {
			return err
		}
		return vm.add(slotVsock, dev, virtio.ClassOther, vmm.Device{ID: "vsock", Kind: "virtio-vsock", Backend: "vhost-vsock"})
	}
	l, err := net.FileListener(files[cfg.Sockets])
	if err != nil {
		return qverr.New(qverr.VMStart, "vsock: %w", err)
	}
	files[cfg.Sockets].Close()
	vm.sockets = vsock.NewSockets(cfg.CID, l, vm.dialer.dial)
	return vm.add(slotVsock, vm.sockets, virtio.ClassOther, vmm.Device{ID: "vsock", Kind: "virtio-vsock", Backend: "unix"})
}

// dialTime is how long the daemon has to make a connection.
const dialTime = 10 * time.Second

// dialer gets connections from the daemon, since this process opens none: it sends a
// port, four bytes, and receives one byte, 0 with the connection's descriptor. A daemon
// that was restarted comes back by itself.
type dialer struct {
	asking sync.Mutex // one question at a time

	mu     sync.Mutex // guards what follows
	daemon *net.UnixConn
	gone   chan struct{} // closed when daemon is another one
}

// attachDialer makes the caller of the control socket the one who is asked.
func (vm *VM) attachDialer() (func(net.Conn, io.Reader), error) {
	if vm.sockets == nil {
		return nil, qverr.New(qverr.NoEnt, "the VM has no vsock that needs sockets")
	}
	return func(conn net.Conn, _ io.Reader) {
		if daemon, ok := conn.(*net.UnixConn); ok {
			<-vm.dialer.set(daemon)
		}
	}, nil
}

// set replaces who is asked; the channel is closed when he is not any more.
func (d *dialer) set(daemon *net.UnixConn) <-chan struct{} {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.daemon != nil {
		d.daemon.Close()
		close(d.gone)
	}
	d.daemon, d.gone = daemon, make(chan struct{})
	return d.gone
}

// drop forgets a daemon that does not answer.
func (d *dialer) drop(daemon *net.UnixConn) {
	d.mu.Lock()
	defer d.mu.Unlock()
	if d.daemon == daemon && daemon != nil {
		d.daemon.Close()
		close(d.gone)
		d.daemon = nil
	}
}

func (d *dialer) current() *net.UnixConn {
	d.mu.Lock()
	defer d.mu.Unlock()
	return d.daemon
}

func (d *dialer) close() { d.drop(d.current()) }

func (d *dialer) dial(port uint32) (net.Conn, error) {
	d.asking.Lock()
	defer d.asking.Unlock()
	daemon := d.current()
	if daemon == nil {
		return nil, qverr.New(qverr.Again, "vsock port %d: nobody makes connections", port)
	}
	conn, err := ask(daemon, port)
	if err != nil && qverr.CodeOf(err) != qverr.NoEnt {
		d.drop(daemon)
	}
	return conn, err
}

func ask(daemon *net.UnixConn, port uint32) (net.Conn, error) {
	if err := daemon.SetDeadline(time.Now().Add(dialTime)); err != nil {
		return nil, err
	}
	if _, err := daemon.Write(binary.LittleEndian.AppendUint32(nil, port)); err != nil {
		return nil, err
	}
	var status [1]byte
	oob := make([]byte, unix.CmsgSpace(4))
	n, oobn, _, _, err := daemon.ReadMsgUnix(status[:], oob)
	if err != nil {
		return nil, err
	}
	if n == 1 && status[0] != 0 {
		return nil, qverr.New(qverr.NoEnt, "vsock port %d: nobody listens", port)
	}
	messages, err := unix.ParseSocketControlMessage(oob[:oobn])
	if err != nil || len(messages) != 1 {
		return nil, qverr.New(qverr.IO, "vsock port %d: no descriptor came (%w)", port, err)
	}
	fds, err := unix.ParseUnixRights(&messages[0])
	if err != nil || len(fds) != 1 {
		return nil, qverr.New(qverr.IO, "vsock port %d: %d descriptors came (%w)", port, len(fds), err)
	}
	f := os.NewFile(uintptr(fds[0]), "vsock")
	defer f.Close()
	return net.FileConn(f)
}
