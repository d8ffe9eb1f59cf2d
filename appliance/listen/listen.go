// Package listen opens the listeners of the API: the local socket, the network and
// vsock. The daemon and the rescue listener are heard at the same places.
package listen

import (
	"crypto/tls"
	"errors"
	"net"
	"net/netip"
	"os"
	"path/filepath"

	"github.com/mdlayher/vsock"
	"golang.org/x/net/netutil"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// maxConnections bounds what strangers on the network can make the node hold.
const maxConnections = 512

// Unix opens the local socket. Everybody may connect: the peer's uid
// decides, and who is refused gets to know why.
func Unix(runDir string) (net.Listener, error) {
	if err := os.MkdirAll(runDir, 0o755); err != nil {
		return nil, qverr.New(qverr.IO, "make the run directory: %w", err)
	}
	path := filepath.Join(runDir, "api.sock")
	if err := os.Remove(path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, qverr.New(qverr.IO, "remove the old socket: %w", err)
	}
	l, err := net.Listen("unix", path)
	if err != nil {
		return nil, qverr.New(qverr.IO, "listen on %s: %w", path, err)
	}
	if err := os.Chmod(path, 0o666); err != nil {
		return nil, errors.Join(qverr.New(qverr.IO, "listen on %s: %w", path, err), l.Close())
	}
	return l, nil
}

// TLS listens on a TCP address; one of IPv4 is not also IPv6.
func TLS(address string, config *tls.Config) (net.Listener, error) {
	// Go would take 0.0.0.0 for IPv6 as well.
	family := "tcp"
	if a, err := netip.ParseAddrPort(address); err == nil && a.Addr().Is4() {
		family = "tcp4"
	}
	l, err := net.Listen(family, address)
	if err != nil {
		return nil, qverr.New(qverr.IO, "listen on %s: %w", address, err)
	}
	return tls.NewListener(netutil.LimitListener(l, maxConnections), config), nil
}

// Vsock serves guests, and plain: bytes between a guest and its host pass
// no network, and the host sees all of the guest anyway.
func Vsock(port uint32) (net.Listener, error) {
	l, err := vsock.ListenContextID(unix.VMADDR_CID_ANY, port, nil)
	if err != nil {
		return nil, qverr.New(qverr.IO, "listen on vsock port %d: %w", port, err)
	}
	return l, nil
}
