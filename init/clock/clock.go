// Package clock carries time between the hardware clock and the system clock.
// Time from the network is the daemon's, once there is a network.
package clock

import (
	"os"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// sane is a time before which no clock is believed: this was written later.
var sane = time.Date(2025, 1, 1, 0, 0, 0, 0, time.UTC)

// FromRTC sets the system clock from the hardware clock unless the kernel has
// done it, which most do. QV_ERR_STATE: neither knows the time.
func FromRTC(device string) error {
	if time.Now().After(sane) {
		return nil
	}
	f, err := os.Open(device)
	if err != nil {
		return unknown("%w", err)
	}
	defer func() { _ = f.Close() }()
	t, err := unix.IoctlGetRTCTime(int(f.Fd()))
	if err != nil {
		return unknown("read %s: %w", device, err)
	}
	now := time.Date(int(t.Year)+1900, time.Month(t.Mon+1), int(t.Mday), int(t.Hour), int(t.Min), int(t.Sec), 0, time.UTC)
	if now.Before(sane) {
		return unknown("%s says %s", device, now.Format(time.DateOnly))
	}
	ts := unix.NsecToTimespec(now.UnixNano())
	if err := unix.ClockSettime(unix.CLOCK_REALTIME, &ts); err != nil {
		return qverr.New(qverr.CodeOf(err), "set the clock: %w", err)
	}
	return nil
}

func unknown(format string, args ...any) error {
	return qverr.New(qverr.State, "nobody knows the time: "+format, args...).
		WithHint("set the time in the firmware and replace its battery; certificates are not valid until a time server answers")
}

// ToRTC sets the hardware clock, so that what a time server said outlives the
// boot.
func ToRTC(device string) error {
	now := time.Now().UTC()
	if now.Before(sane) {
		return nil
	}
	f, err := os.OpenFile(device, os.O_RDWR, 0)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "set the hardware clock: %w", err)
	}
	defer func() { _ = f.Close() }()
	t := unix.RTCTime{
		Year: int32(now.Year() - 1900), Mon: int32(now.Month()) - 1, Mday: int32(now.Day()),
		Hour: int32(now.Hour()), Min: int32(now.Minute()), Sec: int32(now.Second()),
	}
	if err := unix.IoctlSetRTCTime(int(f.Fd()), &t); err != nil {
		return qverr.New(qverr.CodeOf(err), "set the hardware clock: %w", err)
	}
	return nil
}
