package lab

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"time"

	"golang.org/x/sys/unix"
)

func pidfdOpen(pid int) (int, error) { return unix.PidfdOpen(pid, 0) }

// pollReadable waits until fd becomes readable.
func pollReadable(fd int, limit time.Duration) error {
	deadline := time.Now().Add(limit)
	for {
		left := time.Until(deadline)
		if left <= 0 {
			return errors.New("lab: the process did not end in time")
		}
		n, err := unix.Poll([]unix.PollFd{{Fd: int32(fd), Events: unix.POLLIN}}, int(left.Milliseconds())+1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return err
		}
		if n > 0 {
			return nil
		}
	}
}

// firstReadable waits until one of the descriptors is readable or hung up and
// returns it, or -1 on an error.
func firstReadable(fds ...int) int {
	set := make([]unix.PollFd, len(fds))
	for i, fd := range fds {
		set[i] = unix.PollFd{Fd: int32(fd), Events: unix.POLLIN}
	}
	for {
		_, err := unix.Poll(set, -1)
		if errors.Is(err, unix.EINTR) {
			continue
		}
		if err != nil {
			return -1
		}
		for _, p := range set {
			if p.Revents != 0 {
				return int(p.Fd)
			}
		}
	}
}

// follow calls line for every line that appears in the file at path, from an
// offset on, until line returns true or ctx ends. inotify wakes it.
func follow(ctx context.Context, path string, offset int64, line func(string) bool) error {
	watch, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return fmt.Errorf("lab: inotify: %w", err)
	}
	events := os.NewFile(uintptr(watch), "inotify")
	defer events.Close()
	if _, err := unix.InotifyAddWatch(watch, path, unix.IN_MODIFY); err != nil {
		return fmt.Errorf("lab: watch %s: %w", path, err)
	}
	stop := context.AfterFunc(ctx, func() { _ = events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()

	f, err := os.Open(path)
	if err != nil {
		return err
	}
	defer f.Close()
	if _, err := f.Seek(offset, io.SeekStart); err != nil {
		return err
	}
	var pending []byte
	buf := make([]byte, 64<<10)
	for {
		n, err := f.Read(buf)
		pending = append(pending, buf[:n]...)
		for {
			i := bytes.IndexByte(pending, '\n')
			if i < 0 {
				break
			}
			text := string(bytes.TrimRight(pending[:i], "\r"))
			pending = pending[i+1:]
			if line(text) {
				return nil
			}
		}
		if err != nil && !errors.Is(err, io.EOF) {
			return err
		}
		if n > 0 {
			continue
		}
		if _, err := events.Read(buf); err != nil {
			if ctx.Err() != nil {
				return ctx.Err()
			}
			return err
		}
	}
}

// Tail returns the last lines of a console log, for a failed test.
func Tail(path string, lines int) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return err.Error()
	}
	rows := bytes.Split(bytes.TrimRight(data, "\n"), []byte("\n"))
	if len(rows) > lines {
		rows = rows[len(rows)-lines:]
	}
	return string(bytes.Join(rows, []byte("\n")))
}
