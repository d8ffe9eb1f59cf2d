package unixhttp

import (
	"context"
	"errors"
	"io"
	"io/fs"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
	"quantavirt/internal/qverr"
)

const (
	backlog = 4096 // what does not fit is refused, not delayed
	// headLimit is how long a client may take to send its request, and to take
	// the answer.
	headLimit = 10 * time.Second
	// conversations is how many connections are served at the same time.
	conversations = 128
	// breath is the pause after accept has failed, as when descriptors run out.
	breath = 100 * time.Millisecond
)

// Handler answers a request. ctx ends when the client goes away.
type Handler func(ctx context.Context, r Request) Response

// Server serves a socket. See Listen.
type Server struct {
	file    *os.File
	handler Handler
	refused func(status int, text string) Response
	log     *slog.Logger
	slots   chan struct{}
	wg      sync.WaitGroup
}

// Listen makes the socket at path, with mode 0600 in a directory that is made if
// need be. A socket that is there already is replaced. refused makes the answer
// to what is no request.
func Listen(path string, h Handler, refused func(status int, text string) Response, log *slog.Logger) (*Server, error) {
	fail := func(err error) (*Server, error) {
		return nil, qverr.New(qverr.CodeOf(err), "socket %s: %w", path, err)
	}
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		return fail(err)
	}
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return fail(err)
	}
	fd, err := unix.Socket(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK, 0)
	if err != nil {
		return fail(err)
	}
	// The socket takes its mode from its descriptor, so that it is never open to
	// others.
	err = errors.Join(unix.Fchmod(fd, 0o600), unix.Bind(fd, &unix.SockaddrUnix{Name: path}), unix.Listen(fd, backlog))
	if err != nil {
		return fail(errors.Join(err, unix.Close(fd)))
	}
	return &Server{file: os.NewFile(uintptr(fd), path), handler: h, refused: refused, log: log, slots: make(chan struct{}, conversations)}, nil
}

// Serve serves until ctx ends, and returns when the last conversation has ended.
func (s *Server) Serve(ctx context.Context) error {
	stop := context.AfterFunc(ctx, func() { _ = s.file.Close() })
	defer stop()
	defer s.wg.Wait()
	raw, err := s.file.SyscallConn()
	if err != nil {
		return qverr.New(qverr.Generic, "serve %s: %w", s.file.Name(), err)
	}
	for {
		fd := -1
		var accept error
		if err := raw.Read(func(listener uintptr) bool {
			fd, _, accept = unix.Accept4(int(listener), unix.SOCK_CLOEXEC|unix.SOCK_NONBLOCK)
			return !errors.Is(accept, unix.EAGAIN)
		}); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return qverr.New(qverr.CodeOf(err), "serve %s: %w", s.file.Name(), err)
		}
		if accept != nil {
			s.log.Warn("accept", "socket", s.file.Name(), "err", accept)
			select {
			case <-time.After(breath):
			case <-ctx.Done():
			}
			continue
		}
		s.slots <- struct{}{}
		s.wg.Add(1)
		guard.Go(s.log, s.file.Name(), func() {
			defer s.wg.Done()
			defer func() { <-s.slots }()
			s.talk(ctx, fd)
		})
	}
}

// talk serves one connection.
func (s *Server) talk(ctx context.Context, fd int) {
	cred, credErr := unix.GetsockoptUcred(fd, unix.SOL_SOCKET, unix.SO_PEERCRED)
	conn := os.NewFile(uintptr(fd), "connection")
	defer func() { _ = conn.Close() }()
	if credErr != nil {
		s.log.Warn("who is it", "err", credErr)
		return
	}
	_ = conn.SetReadDeadline(time.Now().Add(headLimit))
	defer context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })()
	req, err := readRequest(conn)
	var no *refusal
	switch {
	case errors.As(err, &no):
		s.send(conn, s.refused(no.status, no.text))
		// What is still on its way would make the kernel drop the answer.
		_, _ = io.CopyN(io.Discard, conn, maxHead+MaxBody)
		return
	case err != nil:
		return // gone, or too slow
	}
	req.UID = cred.Uid
	_ = conn.SetReadDeadline(time.Time{})
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	gone := make(chan struct{})
	guard.Go(s.log, "client", func() {
		defer close(gone)
		defer cancel()
		_, _ = conn.Read(make([]byte, 1)) // until the client hangs up
	})
	answer := Response{Status: 500}
	if guard.Run(s.log, req.Method+" "+req.Path, func() { answer = s.handler(ctx, req) }) != nil {
		answer = s.refused(500, "PID 1 has failed to answer; its log says more")
	}
	s.send(conn, answer)
	_ = conn.SetReadDeadline(time.Unix(1, 0))
	<-gone
}

func (s *Server) send(conn *os.File, r Response) {
	_ = conn.SetWriteDeadline(time.Now().Add(headLimit))
	if _, err := conn.Write(r.encode()); err != nil && !errors.Is(err, unix.EPIPE) {
		s.log.Warn("answer", "err", err)
	}
	_ = unix.Shutdown(int(fdOf(conn)), unix.SHUT_WR)
}

// fdOf is the descriptor of a file that stays in non-blocking mode.
func fdOf(f *os.File) uintptr {
	raw, err := f.SyscallConn()
	if err != nil {
		return ^uintptr(0)
	}
	var fd uintptr
	_ = raw.Control(func(d uintptr) { fd = d })
	return fd
}
