package main

import (
	"encoding/binary"
	"io"
	"os"
	"path/filepath"
	"strings"

	"golang.org/x/sys/unix"
)

const (
	evKey    = 1
	keyPower = 116
)

// powerButton powers off when the ACPI power button is pressed.
func powerButton() {
	names, _ := filepath.Glob("/sys/class/input/event*/device/name")
	for _, name := range names {
		text, err := os.ReadFile(name)
		if err != nil || !strings.Contains(string(text), "Power Button") {
			continue
		}
		event := filepath.Base(filepath.Dir(filepath.Dir(name)))
		f, err := os.Open("/dev/input/" + event)
		if err != nil {
			continue
		}
		watch(f)
		return
	}
}

// watch reads input_event records (linux/input.h, 24 bytes on 64-bit).
func watch(f *os.File) {
	buf := make([]byte, 24)
	for {
		if _, err := io.ReadFull(f, buf); err != nil {
			return
		}
		kind := binary.LittleEndian.Uint16(buf[16:])
		code := binary.LittleEndian.Uint16(buf[18:])
		value := binary.LittleEndian.Uint32(buf[20:])
		if kind == evKey && code == keyPower && value == 1 {
			_ = reboot(unix.LINUX_REBOOT_CMD_POWER_OFF)
		}
	}
}
