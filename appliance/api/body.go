package api

import (
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"os"
	"strconv"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"quantavirt/internal/qverr"
)

func requestOf(r *http.Request) *request {
	if req, ok := r.Context().Value(requestKey).(*request); ok {
		return req
	}
	return &request{}
}

// fail answers with the catalogue's error body.
func (s *Server) fail(w http.ResponseWriter, r *http.Request, err error) {
	req := requestOf(r)
	status := qverr.HTTPStatus(err)
	if status >= http.StatusInternalServerError {
		s.Log.Error(r.Method+" "+bounded(r.URL.Path), "err", err, "request_id", req.id)
	} else {
		s.Log.Debug(r.Method+" "+bounded(r.URL.Path), "err", err, "request_id", req.id)
	}
	if status == http.StatusUnauthorized {
		w.Header().Set("WWW-Authenticate", `Bearer realm="quantavirt"`)
	}
	if r.Body != nil && r.ContentLength != 0 {
		// What is left of the body is not read: the connection ends here.
		w.Header().Set("Connection", "close")
	}
	reply(w, status, qverr.NewBody(err, req.id))
	if r.Body != nil && r.ContentLength != 0 && r.Header.Get("Expect") == "" {
		linger(w, r)
	}
}

// linger takes in what a client that writes its whole body before it reads is
// still sending, for a moment: cutting it off could cost it the answer.
func linger(w http.ResponseWriter, r *http.Request) {
	c := http.NewResponseController(w)
	_ = c.Flush()
	_ = c.SetReadDeadline(time.Now().Add(2 * time.Second))
	_, _ = io.CopyN(io.Discard, r.Body, 256<<20)
}

// boundWrite gives a client that does not read a limit.
func boundWrite(w http.ResponseWriter) {
	_ = http.NewResponseController(w).SetWriteDeadline(time.Now().Add(bodyTime))
}

func bounded(s string) string {
	if len(s) > 128 {
		return s[:128] + "…"
	}
	return s
}

func reply(w http.ResponseWriter, status int, v any) {
	data, err := json.Marshal(v)
	if err != nil {
		panic(err)
	}
	boundWrite(w)
	w.Header().Set("Content-Type", "application/json")
	w.Header().Set("Content-Length", strconv.Itoa(len(data)+1))
	w.WriteHeader(status)
	_, _ = w.Write(append(data, '\n'))
}

// answer is what most handlers end with.
func (s *Server) answer(w http.ResponseWriter, r *http.Request, status int, v any, err error) {
	switch {
	case err != nil:
		s.fail(w, r, err)
	case v == nil:
		w.WriteHeader(status)
	default:
		reply(w, status, v)
	}
}

// tree reads a JSON body as encoding/json decodes into an any. Duplicate keys,
// invalid UTF-8 and trailing bytes are refused. An empty body is nil.
func (s *Server) tree(w http.ResponseWriter, r *http.Request) (any, error) {
	if r.ContentLength > bodyLimit {
		return nil, tooLarge()
	}
	_ = http.NewResponseController(w).SetReadDeadline(time.Now().Add(bodyTime))
	data, err := io.ReadAll(http.MaxBytesReader(w, r.Body, bodyLimit))
	_ = http.NewResponseController(w).SetReadDeadline(time.Time{})
	var limit *http.MaxBytesError
	switch {
	case errors.As(err, &limit):
		return nil, tooLarge()
	case errors.Is(err, os.ErrDeadlineExceeded):
		return nil, qverr.New(qverr.Timeout, "the body did not come within %s", bodyTime)
	case err != nil:
		return nil, qverr.New(qverr.Inval, "read the body: %w", err)
	case len(data) == 0:
		return nil, nil
	}
	var v any
	if err := jsonv2.Unmarshal(data, &v); err != nil {
		return nil, qverr.Malformed("the body is not JSON: %w", err)
	}
	return v, nil
}

func tooLarge() error {
	return qverr.New(qverr.Inval, "the body is larger than %d bytes", bodyLimit).With("limit_bytes", bodyLimit)
}

// decode reads a JSON body, holds it against the named schema and fills v. An
// empty body is an error unless it is optional.
func (s *Server) decode(w http.ResponseWriter, r *http.Request, name string, optional bool, v any) error {
	t, err := s.tree(w, r)
	if err != nil {
		return err
	}
	if t == nil {
		if optional && r.ContentLength <= 0 {
			return nil
		}
		return qverr.Malformed("the body is empty")
	}
	set, err := s.Schema()
	if err != nil {
		return qverr.New(qverr.Generic, "%w", err)
	}
	if err := set.Check(name, t); err != nil {
		return err
	}
	data, err := json.Marshal(t)
	if err == nil {
		err = json.Unmarshal(data, v)
	}
	if err != nil {
		return qverr.New(qverr.Config, "%w", err)
	}
	return nil
}
