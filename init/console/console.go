// Package console shows the banner and problems on the consoles that the kernel
// command line names, and shows the banner again when Enter is pressed there.
package console

import (
	"context"
	"errors"
	"io"
	"log/slog"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
)

const (
	// waiting is how many texts wait for a slow console; more are dropped.
	waiting = 64
	// writeLimit is how long a console that takes no more characters holds up
	// the texts after it.
	writeLimit = 10 * time.Second
	// reopen is the pause after a console was closed or could not be opened.
	reopen = 5 * time.Second
)

// Set is all consoles. See New.
type Set struct {
	log      *slog.Logger
	consoles []*console
	active   []string

	mu     sync.Mutex
	banner string
}

// console is one of them.
type console struct {
	name  string
	path  string
	texts chan string
}

// Open opens the devices below dir (/dev). Those that do not exist are left out
// and logged. Nothing that is written blocks the caller.
func Open(ctx context.Context, log *slog.Logger, dir string, names []string, input bool) *Set {
	s := &Set{log: log}
	for _, name := range names {
		c := &console{name: name, path: filepath.Join(dir, name), texts: make(chan string, waiting)}
		f, err := open(c.path)
		if err != nil {
			log.Warn("no console "+name, "err", err)
			continue
		}
		s.consoles = append(s.consoles, c)
		s.active = append(s.active, name)
		guard.Loop(ctx, log, "console "+name, func(ctx context.Context) { s.run(ctx, c, f, input) })
	}
	return s
}

// open never waits for a carrier, and makes reads and writes obey deadlines.
func open(path string) (*os.File, error) {
	fd, err := unix.Open(path, unix.O_RDWR|unix.O_NOCTTY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, err
	}
	return os.NewFile(uintptr(fd), path), nil
}

// Names are those of the consoles that are there.
func (s *Set) Names() []string { return s.active }

// Show makes lines the banner and shows it.
func (s *Set) Show(lines []string) {
	var b strings.Builder
	for _, l := range lines {
		b.WriteString(clean(l))
		b.WriteByte('\n')
	}
	s.mu.Lock()
	s.banner = b.String()
	s.mu.Unlock()
	s.print(b.String())
}

// Say shows a text once.
func (s *Set) Say(text string) { s.print(text + "\n") }

// Raw shows lines of a log as they are.
func (s *Set) Raw(line []byte) { s.print(string(line)) }

func (s *Set) print(text string) {
	for _, c := range s.consoles {
		c.print(text)
	}
}

func (c *console) print(text string) {
	select {
	case c.texts <- text:
	default:
	}
}

// clean takes out what could command a terminal.
func clean(line string) string {
	return strings.Map(func(r rune) rune {
		if r < ' ' && r != '\t' || r == 0x7f {
			return -1
		}
		return r
	}, line)
}

// run serves a console, and opens it again when it was hung up.
func (s *Set) run(ctx context.Context, c *console, f *os.File, input bool) {
	for {
		if f != nil {
			s.serve(ctx, c, f, input)
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(reopen):
		}
		var err error
		if f, err = open(c.path); err != nil {
			s.log.Warn("console "+c.name, "err", err)
		}
	}
}

// serve writes what is to be shown until the console fails.
func (s *Set) serve(ctx context.Context, c *console, f *os.File, input bool) {
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	defer func() { _ = f.Close() }()
	hungUp := make(chan struct{})
	if input {
		go func() {
			defer close(hungUp)
			_ = guard.Run(s.log, "keys of "+c.name, func() { s.keys(c, f) })
		}()
	}
	for {
		select {
		case <-ctx.Done():
			return
		case <-hungUp:
			return
		case text := <-c.texts:
			_ = f.SetWriteDeadline(time.Now().Add(writeLimit))
			if _, err := io.WriteString(f, text); err != nil && !errors.Is(err, os.ErrDeadlineExceeded) {
				return
			}
		}
	}
}

// keys shows the banner whenever a line ends.
func (s *Set) keys(c *console, f *os.File) {
	buf := make([]byte, 256)
	for {
		n, err := f.Read(buf)
		if strings.ContainsAny(string(buf[:n]), "\r\n") {
			s.mu.Lock()
			banner := s.banner
			s.mu.Unlock()
			c.print(banner)
		}
		if err != nil {
			return
		}
	}
}

// Flush waits until what was to be shown has been given to the devices, or for
// limit.
func (s *Set) Flush(limit time.Duration) {
	end := time.After(limit)
	tick := time.NewTicker(10 * time.Millisecond)
	defer tick.Stop()
	for {
		left := 0
		for _, c := range s.consoles {
			left += len(c.texts)
		}
		if left == 0 {
			return
		}
		select {
		case <-end:
			return
		case <-tick.C:
		}
	}
}
