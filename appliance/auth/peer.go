package auth

import (
	"net"
	"os"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// Peer finds who is at the other end of a UNIX socket connection: root and the
// daemon's own uid administer, everybody else is refused with QV_ERR_PERM.
func Peer(conn *net.UnixConn) (Principal, error) {
	raw, err := conn.SyscallConn()
	if err != nil {
		return Principal{}, qverr.New(qverr.Perm, "who calls: %w", err)
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return Principal{}, qverr.New(qverr.Perm, "who calls: %w", err)
	}
	if credErr != nil {
		return Principal{}, qverr.New(qverr.Perm, "who calls: %w", credErr)
	}
	return peerOf(cred.Uid, uint32(os.Geteuid()))
}

func peerOf(uid, own uint32) (Principal, error) {
	if uid != 0 && uid != own {
		return Principal{}, qverr.New(qverr.Perm, "uid %d may not use the local socket", uid).
			WithHint("run as root, or use --host with a token")
	}
	return Principal{Name: "uid " + itoa(uid), Role: spec.TokenRoleAdmin}, nil
}
