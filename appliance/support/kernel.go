package support

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

const (
	kmsg = "/dev/kmsg"
	// maxKmsg is how much of the kernel's messages is taken, in bytes: the end.
	maxKmsg = 4 << 20
	// maxProc is how much of a file of /proc is taken, in bytes.
	maxProc = 1 << 20
)

// procFiles are files of /proc that say how the kernel does.
// None of them has addresses of the kernel.
var procFiles = []string{"meminfo", "interrupts", "mounts", "loadavg"}

// Kernel is the part with the kernel's messages, and what panics gives: the texts of
// earlier kernels' last words by what they are of.
func Kernel(panics func(ctx context.Context) (map[string]string, error)) Part {
	return Part{Name: PartKernel, Items: Items(
		Item{Name: "messages", Collect: messages},
		Item{Name: "panics", Collect: func(ctx context.Context, add func(File) error) error {
			texts, err := panics(ctx)
			for of, text := range texts {
				if err := add(lastOf("panic-"+of+".log", []byte(text), maxLog)); err != nil {
					return err
				}
			}
			return err
		}},
		Item{Name: "proc", Collect: proc},
	)}
}

func proc(_ context.Context, add func(File) error) error {
	var errs []error
	for _, name := range procFiles {
		f, err := os.Open(filepath.Join("/proc", name))
		if err != nil {
			errs = append(errs, qverr.New(qverr.CodeOf(err), "%w", err))
			continue
		}
		text, err := io.ReadAll(io.LimitReader(f, maxProc))
		_ = f.Close()
		if err := errors.Join(err, add(File{Name: name, Text: text})); err != nil {
			errs = append(errs, err)
		}
	}
	return errors.Join(errs...)
}

// messages reads what the kernel keeps of its messages, without waiting for more.
func messages(ctx context.Context, add func(File) error) error {
	fd, err := unix.Open(kmsg, unix.O_RDONLY|unix.O_NONBLOCK|unix.O_CLOEXEC, 0)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "open %s: %w", kmsg, err)
	}
	defer func() { _ = unix.Close(fd) }()
	t := tail{limit: maxKmsg}
	buf := make([]byte, 16<<10) // one record a time, of at most 8 KiB
	for ctx.Err() == nil {
		n, err := unix.Read(fd, buf)
		switch {
		case errors.Is(err, unix.EAGAIN) || err == nil && n == 0:
			return add(t.file("messages.log"))
		case errors.Is(err, unix.EPIPE) || errors.Is(err, unix.EINTR): // overwritten meanwhile: the next one is another
		case err != nil:
			return errors.Join(add(t.file("messages.log")), qverr.New(qverr.CodeOf(err), "read %s: %w", kmsg, err))
		default:
			_, _ = t.Write([]byte(message(string(buf[:n]))))
		}
	}
	return ctx.Err()
}

// message is a record of /dev/kmsg (Documentation/ABI/testing/dev-kmsg) as dmesg prints
// it, with its level: "6,339,5140900,-;text\n KEY=value\n".
func message(record string) string {
	head, text, ok := strings.Cut(record, ";")
	fields := strings.SplitN(head, ",", 4)
	if !ok || len(fields) < 3 {
		return strings.TrimRight(record, "\n") + "\n"
	}
	line, _, _ := strings.Cut(text, "\n") // what follows says of which device it is
	priority, err1 := strconv.Atoi(fields[0])
	at, err2 := strconv.ParseUint(fields[2], 10, 64) // µs since the kernel's start
	if err1 != nil || err2 != nil {
		return line + "\n"
	}
	return fmt.Sprintf("<%d>[%5d.%06d] %s\n", priority&7, at/1e6, at%1e6, line)
}
