package netboot

import (
	"encoding/json"
	"io"
	"net/http"
	"net/netip"
	"os"
	"path"
	"slices"
	"strconv"
	"strings"
	"time"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
)

// Bounds of the HTTP service.
const (
	maxHeader       = 16 << 10
	maxConnections  = 512
	headerTimeout   = 10 * time.Second
	idleTimeout     = time.Minute
	transferTimeout = 30 * time.Minute // of one answer, at 100 KB/s enough for 180 MB
)

// web is the HTTP service.
type web struct {
	*booter
	updates []*os.Root     // none or one
	admins  []netip.Prefix // who may see and forget machines, beside this machine
}

func (w *web) handler() http.Handler {
	mux := http.NewServeMux()
	mux.HandleFunc("GET /boot.ipxe", w.serve(w.getScript))
	mux.HandleFunc("GET /config/{id}", w.serve(w.getConfig))
	mux.HandleFunc("GET /machines", w.serve(w.getMachines))
	mux.HandleFunc("DELETE /machines/{id}", w.serve(w.deleteMachine))
	mux.HandleFunc("GET /updates/{name...}", w.serve(w.getUpdate))
	mux.HandleFunc("GET /{name...}", w.serve(w.getFile))
	return mux
}

// serve gives a failed request the body and the status of its code.
func (w *web) serve(h func(http.ResponseWriter, *http.Request) error) http.HandlerFunc {
	return func(rw http.ResponseWriter, r *http.Request) {
		err := h(rw, r)
		if err == nil {
			return
		}
		w.log.Warn("HTTP request refused", "client", r.RemoteAddr, "method", r.Method, "path", r.URL.Path, "err", err)
		answerJSON(rw, r, qverr.HTTPStatus(err), qverr.NewBody(err, ""))
	}
}

// answerJSON writes a document with its length. It ignores what the network
// does to it.
func answerJSON(rw http.ResponseWriter, r *http.Request, status int, v any) {
	data, err := json.MarshalIndent(v, "", "  ")
	if err != nil {
		http.Error(rw, err.Error(), http.StatusInternalServerError)
		return
	}
	rw.Header().Set("Content-Type", "application/json")
	_ = answer(rw, r, status, append(data, '\n'))
}

func answer(rw http.ResponseWriter, r *http.Request, status int, body []byte) error {
	rw.Header().Set("Content-Length", strconv.Itoa(len(body)))
	rw.Header().Set("Cache-Control", "no-store")
	rw.WriteHeader(status)
	if r.Method == http.MethodHead {
		return nil
	}
	_, err := rw.Write(body)
	return err
}

// remote is the address of the client.
func remote(r *http.Request) netip.Addr {
	ap, _ := netip.ParseAddrPort(r.RemoteAddr)
	return ap.Addr().Unmap()
}

// queried is what a request says about the machine beside its MAC address.
func queried(r *http.Request, m mac.Addr) Identity {
	q := r.URL.Query()
	return Identity{MAC: m, Serial: serialOf(q.Get("serial")), UUID: uuidOf(q.Get("uuid"))}
}

func (w *web) getScript(rw http.ResponseWriter, r *http.Request) error {
	rw.Header().Set("Content-Type", "text/plain; charset=utf-8")
	if !r.URL.Query().Has("mac") {
		return w.text(rw, r, w.firstScript())
	}
	m, err := mac.Parse(r.URL.Query().Get("mac"))
	if err != nil {
		return qverr.New(qverr.Inval, "boot script: %w", err)
	}
	id, set := queried(r, m), w.current()
	e, err := w.lookup(set, id)
	if err != nil {
		w.record(id, remote(r), "HTTP boot script", "not served")
		return err
	}
	if w.done(e, id) {
		w.record(id, remote(r), "HTTP boot script", "on to the next boot device")
		return w.text(rw, r, exitScript)
	}
	w.record(id, remote(r), "HTTP boot script", "boots "+fileKernel)
	return w.text(rw, r, w.script(id, set, e))
}

// text answers; a client that goes away is no failure of ours.
func (w *web) text(rw http.ResponseWriter, r *http.Request, s string) error {
	if err := answer(rw, r, http.StatusOK, []byte(s)); err != nil {
		w.log.Debug("HTTP client went away", "client", r.RemoteAddr, "err", err)
	}
	return nil
}

// identity reads the last part of a path: a MAC address, a UUID or a serial
// number.
func identity(r *http.Request) (Identity, error) {
	text := r.PathValue("id")
	if m, err := mac.Parse(text); err == nil {
		return queried(r, m), nil
	}
	if u := uuidOf(text); u != uuid.Nil {
		return Identity{UUID: u}, nil
	}
	if s := serialOf(text); s != "" {
		return Identity{Serial: s}, nil
	}
	return Identity{}, qverr.New(qverr.Inval, "%q is no MAC address, serial number or UUID", text)
}

func (w *web) getConfig(rw http.ResponseWriter, r *http.Request) error {
	id, err := identity(r)
	if err != nil {
		return err
	}
	set := w.current()
	e, err := w.lookup(set, id)
	config := set.config(e)
	if err == nil && config == nil {
		err = qverr.New(qverr.NoEnt, "there is no configuration for machine %s", id.label())
	}
	// To look at the head is not to fetch.
	if err == nil && w.once && r.Method == http.MethodGet {
		err = w.state.take(fetchKeys(e, id))
	}
	if err != nil {
		w.record(id, remote(r), "HTTP configuration", "refused: "+err.Error())
		return err
	}
	rw.Header().Set("Content-Type", "application/json")
	if err := answer(rw, r, http.StatusOK, config); err != nil {
		w.record(id, remote(r), "HTTP configuration", "not sent: "+err.Error())
		if !w.once {
			return nil
		}
		_, err := w.state.forget(fetchKeys(e, id))
		return err
	}
	if r.Method == http.MethodGet {
		w.record(id, remote(r), "HTTP configuration", "sent")
		w.machines.setFetched(id, true)
	}
	return nil
}

// allowed reports whether a client may see and forget machines: from this
// machine itself always, as its address cannot be that of another's connection.
func (w *web) allowed(r *http.Request) error {
	a := remote(r)
	if a == w.address || a.IsLoopback() || slices.ContainsFunc(w.admins, func(p netip.Prefix) bool { return p.Contains(a) }) {
		return nil
	}
	return qverr.New(qverr.Perm, "%s may not see the machines", a).WithHint("ask from the server's machine, or name the client's network with --admin")
}

func (w *web) getMachines(rw http.ResponseWriter, r *http.Request) error {
	if err := w.allowed(r); err != nil {
		return err
	}
	list := w.machines.list()
	answerJSON(rw, r, http.StatusOK, map[string]any{"items": list, "total": len(list)})
	return nil
}

// deleteMachine lets a machine fetch its configuration once more.
func (w *web) deleteMachine(rw http.ResponseWriter, r *http.Request) error {
	if err := w.allowed(r); err != nil {
		return err
	}
	id, err := identity(r)
	if err != nil {
		return err
	}
	e, _ := w.current().find(id)
	there, err := w.state.forget(fetchKeys(e, id))
	if err != nil {
		return err
	}
	if !there {
		return qverr.New(qverr.NoEnt, "machine %s has not fetched its configuration", id.label())
	}
	w.machines.setFetched(id, false)
	w.log.Info("machine may fetch its configuration again", "machine", id.label())
	rw.WriteHeader(http.StatusNoContent)
	return nil
}

func (w *web) getUpdate(rw http.ResponseWriter, r *http.Request) error {
	return w.file(rw, r, w.updates)
}

func (w *web) getFile(rw http.ResponseWriter, r *http.Request) error {
	return w.file(rw, r, w.tree.roots)
}

// file sends a file, or the part of it that is asked for, with its length,
// which UEFI HTTP boot needs (UEFI 2.10, 24.7).
func (w *web) file(rw http.ResponseWriter, r *http.Request, roots []*os.Root) error {
	name := r.PathValue("name")
	f, info, err := openIn(roots, name)
	if err != nil {
		return err
	}
	defer f.Close()
	kind := "application/octet-stream"
	if path.Ext(name) == ".efi" {
		kind = "application/efi"
	}
	rw.Header().Set("Content-Type", kind)
	counted := &countingReader{ReadSeeker: f}
	http.ServeContent(rw, r, name, info.ModTime(), counted)
	if r.Method == http.MethodGet {
		w.record(Identity{}, remote(r), "HTTP /"+strings.TrimPrefix(r.URL.Path, "/"), strconv.FormatInt(counted.n, 10)+" bytes")
	}
	return nil
}

// countingReader counts what was read of a file.
type countingReader struct {
	io.ReadSeeker
	n int64
}

func (c *countingReader) Read(p []byte) (int, error) {
	n, err := c.ReadSeeker.Read(p)
	c.n += int64(n)
	return n, err
}
