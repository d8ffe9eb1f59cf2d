package system

import (
	"context"
	"errors"
	"fmt"
	"log/slog"
	"sync"
	"time"

	"github.com/beevik/ntp"
	"golang.org/x/sys/unix"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

const (
	ntpTimeout = 5 * time.Second
	syncPeriod = 30 * time.Minute
	// retryFirst is the pause after the first failure; it doubles up to
	// syncPeriod.
	retryFirst = 30 * time.Second
	// stepAbove is the offset from which the clock is set at once; smaller
	// ones are slewed by the kernel.
	stepAbove = 100 * time.Millisecond
)

// Clock keeps the system clock right by SNTP.
type Clock struct {
	log   *slog.Logger
	query func(server string) (*ntp.Response, error)
	set   func(offset, uncertainty time.Duration) error

	mu     sync.Mutex
	status spec.Clock
}

func newClock(log *slog.Logger) *Clock {
	return &Clock{
		log: log,
		query: func(server string) (*ntp.Response, error) {
			return ntp.QueryWithOptions(server, ntp.QueryOptions{Timeout: ntpTimeout})
		},
		set: adjustClock,
	}
}

// Status says whether the clock was set, and how far it was off.
func (c *Clock) Status() spec.Clock {
	c.mu.Lock()
	defer c.mu.Unlock()
	return c.status
}

func (c *Clock) run(ctx context.Context, servers []string) {
	if len(servers) == 0 {
		return
	}
	retry := retryFirst
	for {
		pause := syncPeriod
		if err := c.sync(servers); err == nil {
			retry = retryFirst
		} else {
			pause = retry
			retry = min(2*retry, syncPeriod)
			c.log.Warn("the clock is not synchronised", "err", err)
			c.mu.Lock()
			c.status.Problem = *initapi.NewProblem(err)
			c.mu.Unlock()
		}
		select {
		case <-ctx.Done():
			return
		case <-time.After(pause):
		}
	}
}

// sync asks the servers in turn and believes the first sane answer.
func (c *Clock) sync(servers []string) error {
	var failed error
	for _, server := range servers {
		r, err := c.query(server)
		if err == nil {
			err = r.Validate()
		}
		if err == nil {
			err = c.set(r.ClockOffset, r.RootDistance)
		}
		if err != nil {
			failed = errors.Join(failed, fmt.Errorf("%s: %w", server, err))
			continue
		}
		now := time.Now().UTC()
		c.mu.Lock()
		c.status = spec.Clock{Synchronised: true, Server: server, OffsetMs: float64(r.ClockOffset.Microseconds()) / 1000, LastSync: &now}
		c.mu.Unlock()
		c.log.Info("the clock is set", "server", server, "offset", r.ClockOffset)
		return nil
	}
	return qverr.New(qverr.Timeout, "no time server answered: %w", failed)
}

// adjustClock moves the clock by offset: at once if it is far off, smoothly
// otherwise. Root only.
func adjustClock(offset, uncertainty time.Duration) error {
	if err := moveClock(offset); err != nil {
		return err
	}
	// A clock that is known to be right is also written to the RTC by the
	// kernel, every eleven minutes (adjtimex(2), STA_UNSYNC).
	var tx unix.Timex
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("read the clock's state: %w", err)
	}
	tx = unix.Timex{
		Modes: unix.ADJ_STATUS | unix.ADJ_MAXERROR | unix.ADJ_ESTERROR, Status: tx.Status &^ unix.STA_UNSYNC,
		Maxerror: uncertainty.Microseconds(), Esterror: uncertainty.Microseconds(),
	}
	if _, err := unix.Adjtimex(&tx); err != nil {
		return fmt.Errorf("mark the clock as right: %w", err)
	}
	return nil
}

func moveClock(offset time.Duration) error {
	if offset.Abs() < stepAbove {
		tx := unix.Timex{Modes: unix.ADJ_OFFSET_SINGLESHOT, Offset: offset.Microseconds()}
		if _, err := unix.Adjtimex(&tx); err != nil {
			return fmt.Errorf("slew the clock: %w", err)
		}
		return nil
	}
	ts := unix.NsecToTimespec(time.Now().Add(offset).UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return fmt.Errorf("set the clock: %w", err)
	}
	return nil
}
