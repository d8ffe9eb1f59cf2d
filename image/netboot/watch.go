package netboot

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"time"

	"golang.org/x/sys/unix"
)

// watchMask are the changes that leave a whole file or take one away.
const watchMask = unix.IN_CLOSE_WRITE | unix.IN_MOVED_TO | unix.IN_MOVED_FROM | unix.IN_DELETE

// watcher tells of changes of a file or of a directory's files, from its making
// on.
type watcher struct{ events *os.File }

// newWatcher watches the directory that a file is in, as editors put a new file
// in the place of the old one.
func newWatcher(path string) (*watcher, error) {
	info, err := os.Stat(path)
	if err != nil {
		return nil, err
	}
	if !info.IsDir() {
		path = filepath.Dir(path)
	}
	fd, err := unix.InotifyInit1(unix.IN_CLOEXEC | unix.IN_NONBLOCK)
	if err != nil {
		return nil, fmt.Errorf("inotify: %w", err)
	}
	w := &watcher{events: os.NewFile(uintptr(fd), "inotify")}
	if _, err := unix.InotifyAddWatch(fd, path, watchMask); err != nil {
		w.close()
		return nil, fmt.Errorf("watch %s: %w", path, err)
	}
	return w, nil
}

// run calls changed after each change until ctx ends.
func (w *watcher) run(ctx context.Context, changed func()) error {
	stop := context.AfterFunc(ctx, func() { _ = w.events.SetReadDeadline(time.Unix(1, 0)) })
	defer stop()
	buf := make([]byte, 64<<10)
	for {
		if _, err := w.events.Read(buf); err != nil {
			if ctx.Err() != nil {
				return nil
			}
			return fmt.Errorf("inotify: %w", err)
		}
		changed()
	}
}

func (w *watcher) close() { _ = w.events.Close() }
