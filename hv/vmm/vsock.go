package vmm

import (
	"context"
	"encoding/binary"
	"io"
	"net"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/hv/vmm/wire"
	"quantavirt/internal/qverr"
)

// UpgradeVsock is the protocol by which a VM process asks for connections.
const UpgradeVsock = "quantavirt-vsock"

// vsockDialTime is how long a program of the host has to accept a connection.
const vsockDialTime = 5 * time.Second

// VsockPath is the socket at which programs of the host reach a guest's ports when the
// node has no vhost-vsock. Those of the host are at the same path with "_PORT" behind it.
func VsockPath(runDir, name string) string { return filepath.Join(vmDir(runDir, name), "vsock.sock") }

// ListenVsock makes the listening socket that a machine's Vsock.Sockets names.
func ListenVsock(runDir, name string) (*os.File, error) {
	path := VsockPath(runDir, name)
	if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
		return nil, qverr.New(qverr.VMStart, "directory of VM %s: %w", name, err)
	}
	f, err := listen(path)
	if err != nil {
		return nil, qverr.New(qverr.VMStart, "vsock of VM %s: %w", name, err)
	}
	return f, nil
}

// ServeVsock makes the connections that the guest of p asks for, until ctx or the process
// ends, or another caller takes over: a connection to host port P goes to
// VsockPath_P. QV_ERR_NOENT for a VM that needs none.
func (p *Process) ServeVsock(ctx context.Context) error {
	base := VsockPath(p.runDir, p.Name)
	return p.Client().serveVsock(ctx, func(port uint32) (net.Conn, error) {
		return net.DialTimeout("unix", base+"_"+strconv.FormatUint(uint64(port), 10), vsockDialTime)
	})
}

func (c *Client) serveVsock(ctx context.Context, dial func(port uint32) (net.Conn, error)) error {
	req := &wire.Request{Method: "GET", Path: "/vsock", Header: wire.Header{"Connection": "Upgrade", "Upgrade": UpgradeVsock}}
	conn, br, resp, err := c.exchange(ctx, req)
	if err != nil {
		return err
	}
	defer conn.Close()
	if resp.Status != 101 {
		return errorOf(resp)
	}
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	var port [4]byte
	for {
		if _, err := io.ReadFull(br, port[:]); err != nil {
			return nil // the process ended, or somebody else serves now
		}
		if err := answerDial(conn.(*net.UnixConn), dial, binary.LittleEndian.Uint32(port[:])); err != nil {
			return qverr.New(qverr.IO, "vsock of %s: %w", c.socket, err)
		}
	}
}

// answerDial sends a connection's descriptor, or that there is none.
func answerDial(to *net.UnixConn, dial func(port uint32) (net.Conn, error), port uint32) error {
	conn, err := dial(port)
	if err != nil {
		_, err = to.Write([]byte{1})
		return err
	}
	defer conn.Close()
	raw, err := conn.(*net.UnixConn).SyscallConn()
	if err != nil {
		return err
	}
	if ctlErr := raw.Control(func(fd uintptr) { _, _, err = to.WriteMsgUnix([]byte{0}, unix.UnixRights(int(fd)), nil) }); ctlErr != nil {
		return ctlErr
	}
	return err
}
