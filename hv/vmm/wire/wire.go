// Package wire is the little of HTTP/1.1 (RFC 9112) that a VM process and its
// daemon speak over the control socket: requests and answers with a
// Content-Length, and the upgrade of a connection to a byte stream.
//
// net/http does the same and a hundred things more, and its package state and
// text would be the largest part of a VM process, of which a node runs many.
package wire

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"net/url"
	"strconv"
	"strings"
)

// Limits of what is read.
const (
	MaxLine    = 4096
	MaxHeaders = 64
	MaxBody    = 1 << 20
)

// ErrMalformed says that the peer does not speak HTTP/1.1 as understood here.
var ErrMalformed = errors.New("malformed HTTP message")

// Header holds the fields of a message by their lower-case names.
type Header map[string]string

// Request is one request.
type Request struct {
	Method string
	Path   string // without the query, decoded
	Query  url.Values
	Header Header
	Body   []byte
}

// Upgrade is the protocol that the request asks to change to, "" for none.
func (r *Request) Upgrade() string {
	if !strings.EqualFold(r.Header["connection"], "upgrade") {
		return ""
	}
	return strings.ToLower(r.Header["upgrade"])
}

// ReadRequest reads one request. It returns io.EOF when the peer closed the
// connection between requests.
func ReadRequest(br *bufio.Reader) (*Request, error) {
	line, err := readLine(br)
	if err != nil {
		return nil, err
	}
	parts := strings.Split(line, " ")
	if len(parts) != 3 || parts[0] == "" || !strings.HasPrefix(parts[2], "HTTP/1.") {
		return nil, fmt.Errorf("%w: request line %q", ErrMalformed, line)
	}
	target, err := url.ParseRequestURI(parts[1])
	if err != nil {
		return nil, fmt.Errorf("%w: target: %w", ErrMalformed, err)
	}
	req := &Request{Method: parts[0], Path: target.Path, Query: target.Query()}
	if req.Header, err = readHeader(br); err != nil {
		return nil, noEOF(err)
	}
	if req.Body, err = readBody(br, req.Header); err != nil {
		return nil, noEOF(err)
	}
	return req, nil
}

// Write sends the request.
func (r *Request) Write(w io.Writer) error {
	var b strings.Builder
	target := url.URL{Path: r.Path, RawQuery: r.Query.Encode()}
	fmt.Fprintf(&b, "%s %s HTTP/1.1\r\nHost: vm\r\n", r.Method, target.RequestURI())
	writeMessage(&b, r.Header, r.Body, len(r.Body) > 0 || r.Method != "GET")
	_, err := io.WriteString(w, b.String())
	return err
}

// Response is one answer.
type Response struct {
	Status int
	Header Header
	Body   []byte
}

// ReadResponse reads one answer. After status 101 the connection belongs to the
// new protocol, and br may already hold some of it.
func ReadResponse(br *bufio.Reader) (*Response, error) {
	line, err := readLine(br)
	if err != nil {
		return nil, noEOF(err)
	}
	proto, rest, _ := strings.Cut(line, " ")
	code, _, _ := strings.Cut(rest, " ")
	status, err := strconv.Atoi(code)
	if err != nil || !strings.HasPrefix(proto, "HTTP/1.") || status < 100 || status > 999 {
		return nil, fmt.Errorf("%w: status line %q", ErrMalformed, line)
	}
	resp := &Response{Status: status}
	if resp.Header, err = readHeader(br); err != nil {
		return nil, noEOF(err)
	}
	if status == 101 {
		return resp, nil
	}
	if resp.Body, err = readBody(br, resp.Header); err != nil {
		return nil, noEOF(err)
	}
	return resp, nil
}

// Write sends the answer.
func (r *Response) Write(w io.Writer) error {
	var b strings.Builder
	fmt.Fprintf(&b, "HTTP/1.1 %d %s\r\n", r.Status, statusText(r.Status))
	writeMessage(&b, r.Header, r.Body, r.Status != 101)
	_, err := io.WriteString(w, b.String())
	return err
}

func writeMessage(b *strings.Builder, h Header, body []byte, length bool) {
	for name, value := range h {
		fmt.Fprintf(b, "%s: %s\r\n", name, value)
	}
	if length {
		fmt.Fprintf(b, "Content-Length: %d\r\n", len(body))
	}
	b.WriteString("\r\n")
	b.Write(body)
}

func readLine(br *bufio.Reader) (string, error) {
	var line []byte
	for {
		part, err := br.ReadSlice('\n')
		line = append(line, part...)
		if len(line) > MaxLine {
			return "", fmt.Errorf("%w: line over %d bytes", ErrMalformed, MaxLine)
		}
		if err == nil {
			break
		}
		if !errors.Is(err, bufio.ErrBufferFull) {
			if errors.Is(err, io.EOF) && len(line) > 0 {
				err = io.ErrUnexpectedEOF
			}
			return "", err
		}
	}
	return strings.TrimRight(string(line), "\r\n"), nil
}

func readHeader(br *bufio.Reader) (Header, error) {
	h := Header{}
	for range MaxHeaders {
		line, err := readLine(br)
		if err != nil {
			return nil, err
		}
		if line == "" {
			return h, nil
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok || name == "" || strings.ContainsAny(name, " \t") {
			return nil, fmt.Errorf("%w: header %q", ErrMalformed, line)
		}
		h[strings.ToLower(name)] = strings.TrimSpace(value)
	}
	return nil, fmt.Errorf("%w: over %d header fields", ErrMalformed, MaxHeaders)
}

func readBody(br *bufio.Reader, h Header) ([]byte, error) {
	if _, chunked := h["transfer-encoding"]; chunked {
		return nil, fmt.Errorf("%w: transfer encodings are not understood", ErrMalformed)
	}
	value, ok := h["content-length"]
	if !ok {
		return nil, nil
	}
	n, err := strconv.ParseUint(value, 10, 31)
	if err != nil || n > MaxBody {
		return nil, fmt.Errorf("%w: content length %q", ErrMalformed, value)
	}
	body := make([]byte, n)
	_, err = io.ReadFull(br, body)
	return body, err
}

func noEOF(err error) error {
	if errors.Is(err, io.EOF) {
		return io.ErrUnexpectedEOF
	}
	return err
}

func statusText(status int) string {
	switch {
	case status == 101:
		return "Switching Protocols"
	case status == 202:
		return "Accepted"
	case status < 300:
		return "OK"
	case status == 404:
		return "Not Found"
	case status == 405:
		return "Method Not Allowed"
	case status == 409:
		return "Conflict"
	case status < 500:
		return "Bad Request"
	}
	return "Internal Server Error"
}
