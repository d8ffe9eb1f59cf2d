package cli

import (
	"bytes"
	"context"
	"encoding/json"
	"errors"
	"io"
	"net/http"
	"net/url"
	"strings"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// client is the generated client with what it needs to reach one node.
type client struct {
	*spec.Client
	target target
}

// node connects to the command's node (the connection itself is made by the
// first request).
func (a *app) node() (*client, error) {
	if a.api != nil {
		return a.api, nil
	}
	t, err := a.target()
	if err != nil {
		return nil, err
	}
	a.api, err = newClient(t)
	return a.api, err
}

func newClient(t target) (*client, error) {
	c, err := spec.NewClient(t.base,
		spec.WithHTTPClient(&http.Client{Transport: t.transport(), CheckRedirect: noRedirect}),
		spec.WithRequestEditorFn(t.authorize), spec.WithRequestEditorFn(dropEmpty))
	if err != nil {
		return nil, qverr.New(qverr.Inval, "host %q: %w", t.name, err)
	}
	return &client{Client: c, target: t}, nil
}

func (t target) authorize(_ context.Context, r *http.Request) error {
	if t.token != "" {
		r.Header.Set("Authorization", "Bearer "+t.token)
	}
	r.Header.Set("User-Agent", "quantavirt/"+version.Version)
	return nil
}

// zeroTime is how the generated client writes a time that nobody set.
const zeroTime = "0001-01-01T00:00:00Z"

// dropEmpty leaves out parameters that nobody set: the generated client writes
// optional ones as "name=".
func dropEmpty(_ context.Context, r *http.Request) error {
	q := r.URL.Query()
	for key := range q {
		if v := q.Get(key); v == "" || v == zeroTime {
			q.Del(key)
		}
	}
	r.URL.RawQuery = q.Encode()
	return nil
}

// noRedirect: the token goes to no other place.
func noRedirect(*http.Request, []*http.Request) error { return http.ErrUseLastResponse }

// answer is a decoded answer together with its JSON as received, so that
// -o json shows also what this version does not know.
type answer[T any] struct {
	value T
	raw   []byte
}

// maxAnswer bounds what is read of an answer, in bytes.
const maxAnswer = 64 << 20

// call makes one request and decodes its answer.
func call[T any](a *app, do func(*client) (*http.Response, error)) (answer[T], error) {
	var out answer[T]
	c, err := a.node()
	if err != nil {
		return out, err
	}
	resp, err := do(c)
	if err := c.check(resp, err); err != nil {
		return out, err
	}
	defer resp.Body.Close()
	out.raw, err = io.ReadAll(io.LimitReader(resp.Body, maxAnswer))
	if err != nil {
		return out, c.unreachable(err)
	}
	if len(bytes.TrimSpace(out.raw)) == 0 {
		return out, nil // 204
	}
	if err := json.Unmarshal(out.raw, &out.value); err != nil {
		return out, qverr.New(qverr.Generic, "%s answered something else than expected: %w", c.target.name, err).
			WithHint("is this a QuantaVirt node of version %s?", version.Version)
	}
	return out, nil
}

// check turns everything that is no success into an error with its code. The
// body of an error answer is consumed.
func (c *client) check(resp *http.Response, err error) error {
	if err != nil {
		return c.unreachable(err)
	}
	if resp.StatusCode < 300 {
		return nil
	}
	defer resp.Body.Close()
	raw, _ := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	var body qverr.Body
	if json.Unmarshal(raw, &body) == nil && body.Error.Code != 0 {
		return body.Error.Err()
	}
	return qverr.New(codeOfStatus(resp.StatusCode), "%s answered %s: %.200s", c.target.name, resp.Status, strings.TrimSpace(string(raw)))
}

// codeOfStatus is for answers without an error body, which do not come from a
// node's handlers.
func codeOfStatus(status int) qverr.Code {
	switch status {
	case http.StatusUnauthorized:
		return qverr.Auth
	case http.StatusForbidden:
		return qverr.Perm
	case http.StatusNotFound:
		return qverr.NoEnt
	case http.StatusBadRequest, http.StatusMethodNotAllowed:
		return qverr.Inval
	case http.StatusServiceUnavailable:
		return qverr.Again
	}
	return qverr.Generic
}

// unreachable reports a request without an answer. A refused certificate keeps
// its own code.
func (c *client) unreachable(err error) error {
	var known *qverr.Error
	if errors.As(err, &known) {
		return known
	}
	e := qverr.New(qverr.IO, "no answer from %s: %w (%w)", c.target.name, cause(err), qverr.ErrUnreachable)
	if strings.HasPrefix(c.target.name, "unix://") {
		return e.WithHint("is this a QuantaVirt node? For another one use --host or QUANTAVIRT_HOST")
	}
	return e.WithHint("check address, port and network, and that the node is up")
}

// cause leaves out the method and URL that net/http puts around an error.
func cause(err error) error {
	var u *url.Error
	if errors.As(err, &u) {
		return u.Err
	}
	return err
}
