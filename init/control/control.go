// Package control serves PID 1's socket, whose contract is internal/initapi.
package control

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"log/slog"
	"net"
	"net/http"
	"os"
	"path/filepath"
	"strconv"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// maxBody bounds a request's body.
const maxBody = 64 << 10

// Node is what the socket shows and commands.
type Node interface {
	Boot() initapi.Boot
	// WaitBoot waits until a step has ended; with "" until all have.
	// QV_ERR_NOENT: there is no such step.
	WaitBoot(ctx context.Context, step string) error
	Exit(pid int) (initapi.Exit, bool)
	WaitExit(ctx context.Context, pid int) (initapi.Exit, error)
	Banner(lines []string)
	Ready()
	Reboot()
	PowerOff()
	Log() []byte
}

// Server is the socket's server.
type Server struct {
	http *http.Server
	path string
	log  *slog.Logger
}

type peerKey struct{}

// New makes the server of the socket at path.
func New(path string, node Node, log *slog.Logger) *Server {
	s := &Server{path: path, log: log}
	s.http = &http.Server{
		Handler:           s.rootOnly(handler(node)),
		ReadHeaderTimeout: 10 * time.Second,
		ConnContext: func(ctx context.Context, c net.Conn) context.Context {
			return context.WithValue(ctx, peerKey{}, peer(c))
		},
	}
	return s
}

// Listen makes the socket: mode 0600, in a directory that it makes if need be.
func (s *Server) Listen() (net.Listener, error) {
	if err := os.MkdirAll(filepath.Dir(s.path), 0o755); err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "socket of PID 1: %w", err)
	}
	if err := os.Remove(s.path); err != nil && !errors.Is(err, os.ErrNotExist) {
		return nil, qverr.New(qverr.CodeOf(err), "socket of PID 1: %w", err)
	}
	// Nobody else runs yet who could connect before the mode is set, and the
	// peer is checked anyway.
	l, err := net.Listen("unix", s.path)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "socket of PID 1: %w", err)
	}
	if err := os.Chmod(s.path, 0o600); err != nil {
		return nil, errors.Join(qverr.New(qverr.CodeOf(err), "socket of PID 1: %w", err), l.Close())
	}
	return l, nil
}

// Serve serves until the listener fails.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); err != nil && !errors.Is(err, http.ErrServerClosed) {
		return qverr.New(qverr.CodeOf(err), "serve the socket of PID 1: %w", err)
	}
	return nil
}

// Close ends Serve and all connections.
func (s *Server) Close() error { return s.http.Close() }

// peer is the user at the other end, or an error.
func peer(c net.Conn) any {
	u, ok := c.(*net.UnixConn)
	if !ok {
		return fmt.Errorf("no UNIX socket")
	}
	raw, err := u.SyscallConn()
	if err != nil {
		return err
	}
	var cred *unix.Ucred
	var credErr error
	if err := raw.Control(func(fd uintptr) {
		cred, credErr = unix.GetsockoptUcred(int(fd), unix.SOL_SOCKET, unix.SO_PEERCRED)
	}); err != nil {
		return err
	}
	if credErr != nil {
		return credErr
	}
	return cred.Uid
}

// rootOnly refuses everybody but root, which is also who we are.
func (s *Server) rootOnly(next http.Handler) http.Handler {
	self := uint32(os.Geteuid())
	return http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		who := r.Context().Value(peerKey{})
		if uid, ok := who.(uint32); !ok || uid != self {
			s.log.Warn("refused on the socket of PID 1", "peer", fmt.Sprint(who), "path", r.URL.Path)
			fail(w, qverr.New(qverr.Perm, "only root may talk to PID 1"))
			return
		}
		r.Body = http.MaxBytesReader(w, r.Body, maxBody)
		next.ServeHTTP(w, r)
	})
}

func handler(n Node) http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boot", func(w http.ResponseWriter, r *http.Request) {
		step := r.FormValue("step")
		if step != "" || wait(r) {
			if err := n.WaitBoot(r.Context(), step); err != nil {
				fail(w, err)
				return
			}
		}
		answer(w, n.Boot())
	})
	mux.HandleFunc("GET /exits", func(w http.ResponseWriter, r *http.Request) { exits(n, w, r) })
	mux.HandleFunc("GET /log", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "text/plain; charset=utf-8")
		_, _ = w.Write(n.Log())
	})
	mux.HandleFunc("POST /console", func(w http.ResponseWriter, r *http.Request) {
		var b initapi.Banner
		if err := json.NewDecoder(r.Body).Decode(&b); err != nil {
			fail(w, qverr.New(qverr.Config, "banner: %w", err))
			return
		}
		n.Banner(b.Lines)
		w.WriteHeader(http.StatusNoContent)
	})
	act := func(fn func(), status int) http.HandlerFunc {
		return func(w http.ResponseWriter, _ *http.Request) {
			fn()
			w.WriteHeader(status)
		}
	}
	mux.HandleFunc("POST /ready", act(n.Ready, http.StatusNoContent))
	mux.HandleFunc("POST /reboot", act(n.Reboot, http.StatusAccepted))
	mux.HandleFunc("POST /poweroff", act(n.PowerOff, http.StatusAccepted))
	mux.HandleFunc("/", func(w http.ResponseWriter, r *http.Request) {
		fail(w, qverr.New(qverr.NoEnt, "PID 1 has no %s %s", r.Method, r.URL.Path))
	})
	return mux
}

func wait(r *http.Request) bool {
	v := r.FormValue("wait")
	return v != "" && v != "0"
}

func exits(n Node, w http.ResponseWriter, r *http.Request) {
	pid, err := strconv.Atoi(r.FormValue("pid"))
	if err != nil || pid <= 0 {
		fail(w, qverr.New(qverr.Inval, "pid=%.20q is no number of a process", r.FormValue("pid")))
		return
	}
	if wait(r) {
		e, err := n.WaitExit(r.Context(), pid)
		if err != nil {
			fail(w, err)
			return
		}
		answer(w, e)
		return
	}
	e, ok := n.Exit(pid)
	if !ok {
		fail(w, qverr.New(qverr.NoEnt, "no exit of process %d is known", pid))
		return
	}
	answer(w, e)
}

func answer(w http.ResponseWriter, v any) {
	w.Header().Set("Content-Type", "application/json")
	_ = json.NewEncoder(w).Encode(v)
}

func fail(w http.ResponseWriter, err error) {
	w.Header().Set("Content-Type", "application/json")
	status := http.StatusInternalServerError
	if row, ok := qverr.Lookup(qverr.CodeOf(err)); ok {
		status = row.HTTPStatus
	}
	w.WriteHeader(status)
	_ = json.NewEncoder(w).Encode(qverr.NewBody(err, ""))
}
