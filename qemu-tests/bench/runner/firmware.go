package main

import (
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"quantavirt/qemu-tests/bench/figure"
)

// measureFirmware boots a Debian from its disk by SeaBIOS and GRUB up to its init,
// which is too early to have written to the disk.
func measureFirmware() error {
	disk, err := diskBySerial("boot-debian")
	if err != nil {
		return err
	}
	if err := warm(disk); err != nil {
		return err
	}
	var errs []error
	for _, m := range []struct {
		monitor string
		run     func(see func(io.ReadWriter, int) error) error
	}{
		{figure.HV, func(see func(io.ReadWriter, int) error) error {
			return attendTo(hvRun(1, "--firmware", dir+"/share/bios-256k.bin", "--disk", disk), guestTime, quit, see)
		}},
		{figure.Q35, func(see func(io.ReadWriter, int) error) error {
			return attendTo(qemu(figure.Q35, 1, qemuDisk(figure.Q35, 1, disk)...), guestTime, kill, see)
		}},
	} {
		started := monotonic()
		err := m.run(func(console io.ReadWriter, _ int) error { return await(console, "INIT: version") })
		if err != nil {
			errs = append(errs, fmt.Errorf("SeaBIOS of %s: %w", m.monitor, err))
			continue
		}
		tell(figure.Figure{Monitor: m.monitor, Name: figure.Firmware, Unit: figure.Milliseconds, Value: (monotonic() - started).Seconds() * 1000})
	}
	return errors.Join(errs...)
}

// warm reads a disk into the page cache, or whoever came first would have to.
func warm(disk string) error {
	f, err := os.Open(disk)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	_, err = io.CopyBuffer(struct{ io.Writer }{io.Discard}, f, make([]byte, 1<<20))
	return err
}

// diskBySerial finds a disk of this machine.
func diskBySerial(serial string) (string, error) {
	list, err := filepath.Glob("/sys/block/*/serial")
	if err != nil {
		return "", err
	}
	for _, file := range list {
		if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == serial {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(file))), nil
		}
	}
	return "", fmt.Errorf("no disk has the serial number %s", serial)
}
