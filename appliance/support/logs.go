package support

import (
	"context"
	"errors"
	"io/fs"
	"os"
	"time"

	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

const (
	// logTime is for one file of the node's log, which is a ring of two.
	logTime = time.Minute
	// maxLog is how much is taken of each log, in bytes: its end.
	maxLog = 8 << 20
)

// Logs is the part with the node's log: the ring at path with what was kept of it, the
// newest first, and what PID 1 has kept since the boot (nil: there is none).
func Logs(path string, boot func(ctx context.Context) ([]byte, error)) Part {
	items := []Item{ringFile("node.log", path)}
	if boot != nil {
		items = append(items, Item{Name: "boot", Collect: func(ctx context.Context, add func(File) error) error {
			text, err := boot(ctx)
			if err != nil {
				return err
			}
			return add(lastOf("boot.log", text, maxLog))
		}})
	}
	items = append(items, ringFile("node.log.1", path+".1"))
	return Part{Name: PartLogs, Items: Items(items...)}
}

// ringFile is one file of the ring, as text. One that is not there is no failure: a young
// log has only one.
func ringFile(name, path string) Item {
	return Item{Name: name, Time: logTime, Collect: func(ctx context.Context, add func(File) error) error {
		f, err := os.Open(path)
		if errors.Is(err, fs.ErrNotExist) {
			return nil
		}
		if err != nil {
			return qverr.New(qverr.CodeOf(err), "%w", err)
		}
		defer func() { _ = f.Close() }()
		t := tail{limit: maxLog}
		err = qvlog.Each(f, func(r qvlog.Record) error {
			_, _ = t.Write(append([]byte(r.Text()), '\n'))
			return ctx.Err()
		})
		return errors.Join(add(t.file(name)), err)
	}}
}
