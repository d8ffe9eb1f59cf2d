package lab

import (
	"bufio"
	"bytes"
	"context"
	"crypto/tls"
	"errors"
	"fmt"
	"io"
	"math/rand/v2"
	"net"
	"net/http"
	"strings"
	"sync"
	"time"
)

// Console is an attached console of a VM: lines come out of Expect, what is
// written goes to the guest.
type Console struct {
	conn net.Conn

	mu    sync.Mutex
	raw   []byte
	found int // where in raw the text that Await found last ends
	lines []string
	seen  int
	more  chan struct{} // closed and renewed at each line
	err   error
}

// Attach opens the console of a VM over HTTP Upgrade. The first lines are what
// its ring kept.
func (n *Node) Attach(ctx context.Context, vm string) (*Console, error) {
	raw, err := n.Dial(ctx, "tcp", strings.TrimPrefix(n.URL, "https://"))
	if err != nil {
		return nil, err
	}
	conn := tls.Client(raw, n.TLS())
	if err := conn.HandshakeContext(ctx); err != nil {
		_ = raw.Close()
		return nil, err
	}
	fmt.Fprintf(conn, "GET /api/v1/vms/%s/console HTTP/1.1\r\nHost: node\r\nAuthorization: Bearer %s\r\n"+
		"Connection: Upgrade\r\nUpgrade: quantavirt-console\r\n\r\n", vm, n.Token)
	r := bufio.NewReader(conn)
	resp, err := http.ReadResponse(r, nil)
	if err != nil {
		_ = conn.Close()
		return nil, err
	}
	if resp.StatusCode != http.StatusSwitchingProtocols {
		body, _ := io.ReadAll(resp.Body)
		_ = conn.Close()
		return nil, fmt.Errorf("attach to the console of %s: %s %s", vm, resp.Status, body)
	}
	c := &Console{conn: conn, more: make(chan struct{})}
	go c.read(r)
	return c, nil
}

func (c *Console) read(r *bufio.Reader) {
	part, buf := "", make([]byte, 4096)
	for {
		n, err := r.Read(buf)
		c.mu.Lock()
		c.raw = append(c.raw, buf[:n]...)
		whole := strings.Split(part+string(buf[:n]), "\n")
		part = whole[len(whole)-1]
		if err == nil {
			whole = whole[:len(whole)-1] // the last one goes on
		}
		for _, line := range whole {
			if line = strings.TrimRight(line, "\r"); line != "" {
				c.lines = append(c.lines, line)
			}
		}
		c.err = err
		close(c.more)
		c.more = make(chan struct{})
		c.mu.Unlock()
		if err != nil {
			return
		}
	}
}

// Expect waits for a line that contains text, after the one that the last
// Expect returned, and returns it from text on.
func (c *Console) Expect(ctx context.Context, text string) (string, error) {
	for {
		c.mu.Lock()
		for c.seen < len(c.lines) {
			line := c.lines[c.seen]
			c.seen++
			if i := strings.Index(line, text); i >= 0 {
				c.mu.Unlock()
				return line[i:], nil
			}
		}
		err, more := c.err, c.more
		c.mu.Unlock()
		if err != nil {
			return "", fmt.Errorf("waiting for %q on the console: %w; it said:\n%s", text, err, c.Text())
		}
		select {
		case <-more:
		case <-ctx.Done():
			return "", fmt.Errorf("waiting for %q on the console: %w; it said:\n%s", text, context.Cause(ctx), c.Text())
		}
	}
}

// Await waits for text, after what the last Await found, also where no line ends: on
// the screen of a program that draws one.
func (c *Console) Await(ctx context.Context, text string) error {
	for {
		c.mu.Lock()
		i := bytes.Index(c.raw[c.found:], []byte(text))
		if i >= 0 {
			c.found += i + len(text)
		}
		err, more := c.err, c.more
		c.mu.Unlock()
		switch {
		case i >= 0:
			return nil
		case err != nil:
			return fmt.Errorf("waiting for %q on the console: %w; it said:\n%q", text, err, c.screen())
		}
		select {
		case <-more:
		case <-ctx.Done():
			return fmt.Errorf("waiting for %q on the console: %w; it said:\n%q", text, context.Cause(ctx), c.screen())
		}
	}
}

func (c *Console) screen() []byte {
	c.mu.Lock()
	defer c.mu.Unlock()
	return bytes.Clone(c.raw)
}

// Text is all that the console said so far.
func (c *Console) Text() string {
	c.mu.Lock()
	defer c.mu.Unlock()
	return strings.Join(c.lines, "\n")
}

// Run gives the test guest's agent a command and returns its answer. A tag
// tells it from answers of the past that a new attachment replays.
func (c *Console) Run(ctx context.Context, command string) (string, error) {
	tag := fmt.Sprintf("@%x", rand.Uint64())
	if _, err := fmt.Fprintf(c.conn, "%s %s\n", tag, command); err != nil {
		return "", err
	}
	ctx, cancel := context.WithTimeout(ctx, 90*time.Second)
	defer cancel()
	answer := command
	for answer == command { // the echo of a terminal that nobody reads yet
		line, err := c.Expect(ctx, tag+" ")
		if err != nil {
			return "", err
		}
		answer = strings.TrimPrefix(line, tag+" ")
	}
	if text, ok := strings.CutPrefix(answer, "error "); ok {
		return "", errors.New(text)
	}
	return strings.TrimPrefix(answer, "ok "), nil
}

// Send writes a command that has no answer, as poweroff.
func (c *Console) Send(command string) error {
	_, err := fmt.Fprintf(c.conn, "@ %s\n", command)
	return err
}

// Close detaches.
func (c *Console) Close() error { return c.conn.Close() }

// Shell runs a command in the rescue shell that an appliance started with
// quantavirt.rescue has on its serial console, and returns what it printed.
func (n *Node) Shell(ctx context.Context, command string) (string, error) {
	conn, err := net.Dial("unix", n.SerialSocket)
	if err != nil {
		return "", err
	}
	defer conn.Close()
	stop := context.AfterFunc(ctx, func() { _ = conn.SetDeadline(time.Unix(1, 0)) })
	defer stop()
	// The shell echoes what it reads: the markers are split there, so that
	// only their output matches.
	fmt.Fprintf(conn, "\necho BE''GIN; %s; echo E''ND\n", command)
	r := bufio.NewReader(conn)
	var out []string
	begun := false
	for {
		line, err := r.ReadString('\n')
		if err != nil {
			return "", fmt.Errorf("shell of %s: %q: %w; it said %q", n.Name, command, err, out)
		}
		line = strings.TrimRight(line, "\r\n")
		switch {
		case strings.Contains(line, "Kernel panic"):
			return "", fmt.Errorf("shell of %s: %q: %s; it said %q", n.Name, command, line, out)
		case strings.HasSuffix(line, "BEGIN"):
			begun = true
		case strings.HasSuffix(line, "END") && begun:
			return strings.Join(out, "\n"), nil
		case begun:
			out = append(out, line)
		}
	}
}
