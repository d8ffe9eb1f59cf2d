// Package power hears the node's power button through the kernel's input
// devices.
package power

import (
	"context"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

// linux/input.h and linux/input-event-codes.h
const (
	eventSize = 24 // struct input_event on 64 bits: time 16, type 2, code 2, value 4
	evKey     = 1
	keyPower  = 116
	pressed   = 1
)

// Buttons names the event devices below sys (/sys) that have a power key.
func Buttons(sys string) []string {
	files, err := filepath.Glob(filepath.Join(sys, "class/input/event*/device/capabilities/key"))
	if err != nil {
		return nil
	}
	var found []string
	for _, file := range files {
		if text, err := os.ReadFile(file); err == nil && hasKey(string(text), keyPower) {
			dir := strings.TrimSuffix(file, "/device/capabilities/key")
			found = append(found, filepath.Base(dir))
		}
	}
	return found
}

// hasKey reads a bitmap as sysfs shows it: words of 64 bits in hexadecimal, the
// highest first.
func hasKey(bitmap string, key int) bool {
	words := strings.Fields(bitmap)
	i := len(words) - 1 - key/64
	if i < 0 {
		return false
	}
	w, err := strconv.ParseUint(words[i], 16, 64)
	return err == nil && w>>(key%64)&1 == 1
}

// Watch calls press at every press of the power key of an event device, until
// the device or ctx ends.
func Watch(ctx context.Context, device string, press func()) error {
	f, err := os.Open(device)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "power button: %w", err)
	}
	stop := context.AfterFunc(ctx, func() { _ = f.Close() })
	defer stop()
	defer func() { _ = f.Close() }()
	if err := events(f, press); err != nil && ctx.Err() == nil {
		return qverr.New(qverr.CodeOf(err), "power button %s: %w", device, err)
	}
	return nil
}

func events(r io.Reader, press func()) error {
	var e [eventSize]byte
	for {
		if _, err := io.ReadFull(r, e[:]); err != nil {
			if errors.Is(err, io.EOF) {
				return nil
			}
			return err
		}
		kind, code, value := binary.LittleEndian.Uint16(e[16:]), binary.LittleEndian.Uint16(e[18:]), binary.LittleEndian.Uint32(e[20:])
		if kind == evKey && code == keyPower && value == pressed {
			press()
		}
	}
}
