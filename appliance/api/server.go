package api

import (
	"context"
	"crypto/rand"
	"encoding/hex"
	"log/slog"
	"net"
	"net/http"
	"runtime/debug"
	"sync"
	"time"

	"quantavirt/appliance/api/schema"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/auth"
	"quantavirt/appliance/backup"
	"quantavirt/appliance/crypto"
	"quantavirt/appliance/install"
	"quantavirt/appliance/logs"
	"quantavirt/appliance/network"
	"quantavirt/appliance/storage"
	"quantavirt/appliance/support"
	"quantavirt/appliance/task"
	"quantavirt/appliance/trust"
	"quantavirt/appliance/update"
	"quantavirt/appliance/vm"
	"quantavirt/internal/qverr"
)

const (
	// bodyLimit is how large a JSON body may be.
	bodyLimit = 1 << 20
	// headerTime and idleTime bound slow clients; bodies are bounded by
	// bodyTime on JSON routes and by stallTime between two pieces of an upload.
	headerTime  = 10 * time.Second
	idleTime    = 2 * time.Minute
	bodyTime    = 30 * time.Second
	stallTime   = time.Minute
	headerLimit = 16 << 10
)

// Deps is what the handlers stand on.
type Deps struct {
	Log      *slog.Logger
	Schema   func() (*schema.Set, error)
	Tokens   *auth.Tokens
	Tasks    *task.Manager
	VMs      *vm.Service
	Storage  *storage.Service
	Networks *network.Service
	Crypto   *crypto.Service
	PCI      PCI
	Trust    *trust.Service
	Install  *install.Service
	System   System
	Update   *update.Service
	Logs     logs.Source
	Backup   *backup.Service
	Support  *support.Service
	// Gate refuses an operation ("GET /path", with {names} as in the description)
	// that cannot be served; nil lets all through. Whoever calls has been admitted.
	Gate func(operation string) error
}

// PCI is the functions of the node; see hostpci.Service.
type PCI interface {
	List() ([]spec.SystemPCI, error)
}

// System is the node as the handlers see it; see system.Service.
type System interface {
	Ready() error
	Info(ctx context.Context) (spec.SystemInfo, error)
	Capabilities(ctx context.Context) (spec.Capabilities, error)
	Disks() ([]spec.SystemDisk, error)
	Reboot(ctx context.Context) error
	PowerOff(ctx context.Context) error
	RestartDaemon() error
}

// Server is the API.
type Server struct {
	Deps
	http *http.Server
	mux  *http.ServeMux
}

var _ spec.ServerInterface = (*Server)(nil)

type contextKey int

const requestKey contextKey = 0

// request is what the middleware knows about a request.
type request struct {
	id  string
	who auth.Principal
}

// New makes the API.
func New(deps Deps) *Server {
	s := &Server{Deps: deps, mux: http.NewServeMux()}
	spec.HandlerWithOptions(s, spec.StdHTTPServerOptions{
		BaseRouter:       s.mux,
		ErrorHandlerFunc: s.badParameter,
	})
	s.http = &http.Server{
		Handler:           http.HandlerFunc(s.serve),
		ReadHeaderTimeout: headerTime,
		IdleTimeout:       idleTime,
		MaxHeaderBytes:    headerLimit,
		ErrorLog:          slog.NewLogLogger(deps.Log.Handler(), slog.LevelDebug),
		ConnContext:       auth.ConnContext,
	}
	return s
}

// Serve answers on l until Shutdown; the error says why it ended before.
func (s *Server) Serve(l net.Listener) error {
	if err := s.http.Serve(l); err != http.ErrServerClosed {
		return qverr.New(qverr.IO, "serve the API on %s: %w", l.Addr(), err)
	}
	return nil
}

// Shutdown closes the listeners and waits for requests until ctx is over, then
// cuts them.
func (s *Server) Shutdown(ctx context.Context) {
	if err := s.http.Shutdown(ctx); err != nil {
		_ = s.http.Close()
	}
}

// serve is the way of every request up to its route.
func (s *Server) serve(w http.ResponseWriter, r *http.Request) {
	req := &request{id: newRequestID()}
	r = r.WithContext(context.WithValue(r.Context(), requestKey, req))
	w.Header().Set("X-Request-Id", req.id)
	out := &recorder{ResponseWriter: w}
	start := time.Now()
	defer func() {
		if p := recover(); p != nil && p != http.ErrAbortHandler {
			s.Log.Error("panic in a request", "err", qverr.New(qverr.Generic, "%v", p), "request_id", req.id, "stack", string(debug.Stack()))
			if out.status == 0 {
				s.fail(out, r, qverr.New(qverr.Generic, "the request hit a bug; the log has it under %s", req.id))
			}
		}
		s.Log.Debug("request", "method", r.Method, "path", r.URL.Path, "status", out.status, "who", req.who.Name,
			"request_id", req.id, "took", time.Since(start))
	}()
	if err := s.admit(r, req); err != nil {
		s.fail(out, r, err)
		return
	}
	s.route(out, r)
}

func newRequestID() string {
	var b [4]byte
	_, _ = rand.Read(b[:])
	return "req-" + hex.EncodeToString(b[:])
}

func isProbe(path string) bool { return path == "/healthz" || path == "/readyz" }

// admit finds out who calls and whether they may.
func (s *Server) admit(r *http.Request, req *request) error {
	if isProbe(r.URL.Path) {
		return nil
	}
	var err error
	req.who, err = s.Tokens.Admit(r)
	return err
}

// route refuses unknown paths, methods and queries in the catalogue's form
// before the generated wrapper sees the request.
func (s *Server) route(w http.ResponseWriter, r *http.Request) {
	handler, pattern := s.mux.Handler(r)
	if pattern == "" {
		s.noRoute(w, r, handler)
		return
	}
	if s.Gate != nil {
		if err := s.Gate(pattern); err != nil {
			s.fail(w, r, err)
			return
		}
	}
	set, err := s.Schema()
	if err == nil {
		err = set.CheckQuery(pattern, r.URL.Query())
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	s.mux.ServeHTTP(w, r)
}

func (s *Server) noRoute(w http.ResponseWriter, r *http.Request, handler http.Handler) {
	probe := &discard{header: make(http.Header)}
	handler.ServeHTTP(probe, r)
	if allow := probe.header.Get("Allow"); allow != "" {
		w.Header().Set("Allow", allow)
		s.fail(w, r, qverr.New(qverr.Inval, "%.128s knows %s, not %.16s", r.URL.Path, allow, r.Method))
		return
	}
	s.fail(w, r, qverr.New(qverr.NoEnt, "there is no %.128s", r.URL.Path))
}

func (s *Server) badParameter(w http.ResponseWriter, r *http.Request, err error) {
	s.fail(w, r, qverr.New(qverr.Inval, "%w", err))
}

// recorder remembers the status for the log and lets handlers reach the
// connection through http.ResponseController.
type recorder struct {
	http.ResponseWriter
	status int
}

func (r *recorder) WriteHeader(status int) {
	if r.status == 0 || r.status < 200 {
		r.status = status
	}
	r.ResponseWriter.WriteHeader(status)
}

func (r *recorder) Write(p []byte) (int, error) {
	if r.status == 0 {
		r.status = http.StatusOK
	}
	return r.ResponseWriter.Write(p)
}

func (r *recorder) Unwrap() http.ResponseWriter { return r.ResponseWriter }

// discard is a ResponseWriter of which only the header is looked at.
type discard struct{ header http.Header }

func (d *discard) Header() http.Header         { return d.header }
func (d *discard) Write(p []byte) (int, error) { return len(p), nil }
func (d *discard) WriteHeader(int)             {}

// LazySchema parses the description at its first use: start-up does not wait.
func LazySchema() func() (*schema.Set, error) {
	return sync.OnceValues(func() (*schema.Set, error) { return schema.Load(spec.JSON) })
}
