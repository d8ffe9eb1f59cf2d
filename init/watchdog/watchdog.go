// Package watchdog feeds the hardware watchdog: as long as PID 1 can show that
// it works, and no longer, so that a machine that hangs is reset. The device is
// never closed: the end of the node is watched as well.
package watchdog

import (
	"context"
	"log/slog"
	"os"
	"sync/atomic"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// DefaultTimeout is the time-out that is asked for; a device may choose another.
const DefaultTimeout = time.Minute

// Dog is an open watchdog.
type Dog struct {
	file    *os.File
	Timeout time.Duration
	Reset   bool // it has reset the machine before this boot
}

// Open starts the watchdog at path. The clock runs from here on.
func Open(path string, timeout time.Duration) (*Dog, error) {
	fd, err := unix.Open(path, unix.O_WRONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "open the watchdog %s: %w", path, err)
	}
	d := &Dog{file: os.NewFile(uintptr(fd), path), Timeout: DefaultTimeout}
	// A device that cannot be set says what it has.
	_ = unix.IoctlSetPointerInt(fd, unix.WDIOC_SETTIMEOUT, int(timeout.Seconds()))
	if s, err := unix.IoctlGetInt(fd, unix.WDIOC_GETTIMEOUT); err == nil && s > 0 {
		d.Timeout = time.Duration(s) * time.Second
	}
	if s, err := unix.IoctlGetInt(fd, unix.WDIOC_GETBOOTSTATUS); err == nil {
		d.Reset = s&unix.WDIOF_CARDRESET != 0
	}
	return d, nil
}

// Feed feeds the watchdog four times in its time-out while alive answers true,
// until ctx ends.
func Feed(ctx context.Context, log *slog.Logger, timeout time.Duration, alive func() bool, feed func() error) {
	tick := time.NewTicker(timeout / 4)
	defer tick.Stop()
	hungry := false
	for {
		switch ok := alive(); {
		case ok:
			if err := feed(); err != nil {
				log.Error("feed the watchdog", "err", err)
			}
			hungry = false
		case !hungry:
			log.Error("the watchdog is not fed: PID 1 does not turn", "reset_in", timeout)
			hungry = true
		}
		select {
		case <-ctx.Done():
			return
		case <-tick.C:
		}
	}
}

// Feed1 feeds the watchdog once.
func (d *Dog) Feed1() error {
	_, err := d.file.Write([]byte{0}) // anything but 'V', which would permit a close
	return err
}

// Pulse remembers when something last showed that it works.
type Pulse struct{ last atomic.Int64 }

var epoch = time.Now()

// Beat is called by what is watched.
func (p *Pulse) Beat() { p.last.Store(int64(time.Since(epoch))) }

// Within tells whether the last beat is not older than d.
func (p *Pulse) Within(d time.Duration) bool {
	return time.Since(epoch)-time.Duration(p.last.Load()) <= d
}
