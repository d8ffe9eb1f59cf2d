package vfiouser

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"os"
	"syscall"
)

// Listen makes the socket that QEMU connects to. A socket that a dead server left there is replaced; one that answers, or
// anything else at that path, is an error.
func Listen(path string) (*net.UnixListener, error) {
	addr := &net.UnixAddr{Name: path, Net: "unix"}
	l, err := net.ListenUnix("unix", addr)
	if err == nil || !errors.Is(err, syscall.EADDRINUSE) {
		return l, err
	}
	st, serr := os.Lstat(path)
	if serr != nil || st.Mode().Type() != os.ModeSocket {
		return nil, err
	}
	if c, derr := net.DialUnix("unix", nil, addr); derr == nil {
		c.Close()
		return nil, fmt.Errorf("%s: another server answers there", path)
	}
	if err := os.Remove(path); err != nil {
		return nil, fmt.Errorf("replace a stale socket: %w", err)
	}
	return net.ListenUnix("unix", addr)
}

// Serve shows dev to one client after the other until ctx ends, and closes l.
func Serve(ctx context.Context, l *net.UnixListener, dev Device, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { l.Close() })
	defer stop()
	defer l.Close()
	for {
		c, err := l.AcceptUnix()
		if err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("accept: %w", err)
		}
		log.Info("client connected")
		if err := ServeConn(ctx, c, dev, log); err != nil && ctx.Err() == nil {
			log.Warn("client failed", "error", err)
			continue
		}
		log.Info("client left")
	}
}

// ServeConn shows dev to one client until it leaves or ctx ends.
func ServeConn(ctx context.Context, c *net.UnixConn, dev Device, log *slog.Logger) error {
	stop := context.AfterFunc(ctx, func() { c.Close() })
	defer stop()
	return newSession(c, dev, log).serve()
}
