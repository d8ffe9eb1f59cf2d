package main

import (
	"context"
	"errors"
	"os"
	"strconv"
	"time"

	"quantavirt/init/cmdline"
	"quantavirt/init/guard"
	"quantavirt/init/watchdog"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// turning is how old the supervisor's last turn may be for the watchdog to be
// fed.
const turning = 30 * time.Second

// Where watchdogs are: system peripherals of their own (i6300esb, hpwdt), and parts
// of the LPC bridge (lpc_ich) or the SMBus controller (i2c_i801, sp5100_tco), which
// then show a device of the platform, as ACPI does.
var watchdogDevices = []string{"bc08sc80", "bc06sc01", "bc0Csc05", "platform:iTCO_wdt", "platform:wdat_wdt"}

// earlyWatchdog loads the drivers of watchdogs before those of anything else that
// may hang, and starts the first.
func (n *node) earlyWatchdog(ctx context.Context) error {
	err := loadNew(n.modules, isOne(watchdogDevices), "pci", "platform")
	return errors.Join(err, n.startWatchdog(ctx))
}

// startWatchdog feeds the first watchdog, unless one is fed already; to have none
// is no problem.
func (n *node) startWatchdog(context.Context) error {
	timeout := watchdog.DefaultTimeout
	if v, ok := n.line.Option(cmdline.OptWatchdog); ok {
		if v == "off" {
			return nil
		}
		s, err := strconv.Atoi(v)
		if err != nil || s < 10 || s > 3600 {
			return qverr.New(qverr.Config, "quantavirt.watchdog=%.20s is neither off nor a number of seconds from 10 to 3600", v)
		}
		timeout = time.Duration(s) * time.Second
	}
	if n.Boot().Watchdog != "" {
		return nil
	}
	for _, path := range []string{"/dev/watchdog0", "/dev/watchdog"} {
		if _, err := os.Stat(path); err != nil {
			continue
		}
		dog, err := watchdog.Open(path, timeout)
		if err != nil {
			return err
		}
		n.set(func(b *wire.Boot) { b.Watchdog, b.DogReset = path, dog.Reset })
		n.log.Info("watchdog", "device", path, "timeout", dog.Timeout, "has_reset", dog.Reset)
		guard.Loop(n.ctx, n.log, "watchdog", func(ctx context.Context) {
			watchdog.Feed(ctx, n.log, dog.Timeout, func() bool { return n.pulse.Within(turning) }, dog.Feed1)
		})
		return nil
	}
	return nil
}
