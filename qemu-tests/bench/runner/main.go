// Command runner measures virtual machine monitors inside the appliance: it
// starts the same guest in turn by the node's API, as an operator would, and with
// QEMU's microvm, and prints one JSON line a run. It is put into the appliance as
// part of an archive beside the image.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/qemu-tests/guest/first"
)

const dir = "/bench"

// Measurement is one run; times are milliseconds from the start of the process.
type measurement struct {
	Monitor          string  `json:"monitor"`
	FirstInstruction float64 `json:"first_instruction_ms"`
	GuestInit        float64 `json:"guest_init_ms"`
	BeyondRAM        int64   `json:"beyond_guest_ram_kib"` // proportional set size
}

func main() {
	runs := 1
	if len(os.Args) > 1 {
		runs, _ = strconv.Atoi(os.Args[1])
	}
	if err := os.WriteFile(dir+"/first", first.Kernel(), 0o644); err != nil {
		fmt.Println("bench-error", err)
		return
	}
	awaitKVM()
	out := json.NewEncoder(os.Stdout)
	if err := prepareVMs(); err != nil {
		fmt.Println("bench-error", err)
		return
	}
	for range runs {
		for _, monitor := range []struct {
			name  string
			start starter
		}{{"hv", startVM}, {"microvm", startMicroVM}} {
			name, start := monitor.name, monitor.start
			m := measurement{Monitor: name}
			err := start("first", "!", func(ms float64, _ int) error { m.FirstInstruction = ms; return nil })
			if err == nil {
				err = start("guest", "guest: ready", func(ms float64, pid int) (err error) {
					m.GuestInit = ms
					m.BeyondRAM, err = beyondRAM(pid)
					return err
				})
			}
			if err != nil {
				fmt.Printf("bench-error %s: %v\n", name, err)
				continue
			}
			_ = out.Encode(m)
		}
	}
	if err := measureTimers(); err != nil {
		fmt.Println("bench-error", err)
	}
	fmt.Println("bench-done")
}

// awaitKVM waits for the module, which PID 1 loads beside everything else.
func awaitKVM() {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for range 600 {
		if _, err := os.Stat("/dev/kvm"); err == nil {
			return
		}
		<-tick.C
	}
}

// starter starts a guest, "first" or "guest", waits until it says text, calls seen
// with the milliseconds since the start call and the process of the monitor, and
// ends it.
type starter func(guest, text string, seen func(ms float64, pid int) error) error

const (
	memory  = "192M"
	cmdline = "console=ttyS0 quiet agent=ttyS0"
)

// kernels by the name of the guest.
var kernels = map[string]string{"first": dir + "/first", "guest": dir + "/vmlinuz"}

func monotonic() time.Duration {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_MONOTONIC, &ts)
	return time.Duration(ts.Nano())
}

func await(r io.Reader, text string) error {
	lines := bufio.NewScanner(r)
	for lines.Scan() {
		if strings.Contains(lines.Text(), text) {
			return nil
		}
	}
	return errors.New("the monitor ended before its guest was up")
}

// beyondRAM is the proportional set size of a process without its memfd mapping,
// the guest's RAM, in KiB.
func beyondRAM(pid int) (int64, error) {
	text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(pid), "smaps"))
	if err != nil {
		return 0, err
	}
	total, ram := int64(0), false
	for line := range strings.Lines(string(text)) {
		f := strings.Fields(line)
		switch {
		case len(f) >= 5 && strings.Contains(f[0], "-"):
			ram = len(f) > 5 && strings.HasPrefix(f[5], "/memfd:")
		case len(f) == 3 && f[0] == "Pss:" && !ram:
			kib, err := strconv.ParseInt(f[1], 10, 64)
			if err != nil {
				return 0, err
			}
			total += kib
		}
	}
	return total, nil
}
