package unixhttp

import (
	"bufio"
	"errors"
	"fmt"
	"io"
	"strconv"
	"strings"
)

const (
	maxHead = 16 << 10 // request line and headers
	// MaxBody bounds a request's body.
	MaxBody = 64 << 10
)

// Request is what a client asks.
type Request struct {
	Method string
	Path   string
	Query  map[string]string // the last of equal names; not unescaped
	Body   []byte
	UID    uint32 // of the client
}

// refusal is a request that gets an answer without being looked at further.
type refusal struct {
	status int
	text   string
}

func (r *refusal) Error() string { return r.text }

func refuse(status int, format string, args ...any) error {
	return &refusal{status, fmt.Sprintf(format, args...)}
}

// readRequest reads one request. io.EOF: the client has sent nothing.
func readRequest(in io.Reader) (Request, error) {
	r := bufio.NewReader(&io.LimitedReader{R: in, N: maxHead + MaxBody})
	var req Request
	line, err := readLine(r)
	if err != nil {
		return req, err
	}
	if err := req.line(line); err != nil {
		return req, err
	}
	length, err := readHeaders(r)
	if err != nil {
		return req, err
	}
	req.Body = make([]byte, length)
	if _, err := io.ReadFull(r, req.Body); err != nil {
		return req, refuse(400, "the body ends too early")
	}
	return req, nil
}

// readLine reads a line without its end, which is CRLF or LF.
func readLine(r *bufio.Reader) (string, error) {
	line, err := r.ReadString('\n')
	switch {
	case errors.Is(err, io.EOF) && line == "":
		return "", io.EOF
	case errors.Is(err, io.EOF), len(line) > maxHead:
		return "", refuse(431, "the head of the request is too long or ends too early")
	case err != nil:
		return "", err
	}
	return strings.TrimSuffix(strings.TrimSuffix(line, "\n"), "\r"), nil
}

// line reads "METHOD TARGET HTTP/1.x".
func (q *Request) line(line string) error {
	f := strings.Split(line, " ")
	if len(f) != 3 || f[0] == "" || !strings.HasPrefix(f[1], "/") || f[2] != "HTTP/1.1" && f[2] != "HTTP/1.0" {
		return refuse(400, "%.80q is no request of HTTP/1.1", line)
	}
	q.Method = f[0]
	path, query, _ := strings.Cut(f[1], "?")
	q.Path, q.Query = path, make(map[string]string)
	for pair := range strings.SplitSeq(query, "&") {
		if name, value, _ := strings.Cut(pair, "="); name != "" {
			q.Query[name] = value
		}
	}
	return nil
}

// readHeaders returns the length of the body.
func readHeaders(r *bufio.Reader) (length int, err error) {
	for size := 0; ; {
		line, err := readLine(r)
		if errors.Is(err, io.EOF) {
			return 0, refuse(400, "the headers end too early")
		}
		if err != nil {
			return 0, err
		}
		if line == "" {
			return length, nil
		}
		if size += len(line); size > maxHead {
			return 0, refuse(431, "the head of the request is too long")
		}
		name, value, ok := strings.Cut(line, ":")
		if !ok {
			return 0, refuse(400, "%.80q is no header", line)
		}
		value = strings.TrimSpace(value)
		switch strings.ToLower(name) {
		case "content-length":
			length, err = strconv.Atoi(value)
			if err != nil || length < 0 {
				return 0, refuse(400, "%.40q is no length", value)
			}
			if length > MaxBody {
				return 0, refuse(413, "a body of %d bytes is too long", length)
			}
		case "transfer-encoding":
			return 0, refuse(411, "a body needs a Content-Length here")
		}
	}
}

var reasons = map[int]string{
	200: "OK", 202: "Accepted", 204: "No Content", 400: "Bad Request", 403: "Forbidden", 404: "Not Found", 411: "Length Required",
	413: "Content Too Large", 422: "Unprocessable Content", 431: "Request Header Fields Too Large", 500: "Internal Server Error", 503: "Service Unavailable",
}

// Response is the answer.
type Response struct {
	Status int
	Type   string // Content-Type
	Body   []byte
}

// encode is the answer as it goes over the wire; the connection is then closed.
func (r Response) encode() []byte {
	reason := reasons[r.Status]
	if reason == "" {
		reason = "Status"
	}
	head := fmt.Sprintf("HTTP/1.1 %d %s\r\nConnection: close\r\n", r.Status, reason)
	if r.Status != 204 {
		head += fmt.Sprintf("Content-Length: %d\r\n", len(r.Body))
	}
	if r.Type != "" {
		head += "Content-Type: " + r.Type + "\r\n"
	}
	return append([]byte(head+"\r\n"), r.Body...)
}
