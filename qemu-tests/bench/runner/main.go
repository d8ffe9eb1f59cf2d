// Command runner measures virtual machine monitors inside the appliance: it starts
// the same guests in turn by the node's API, as an operator would, and with QEMU's
// microvm and q35, and prints one JSON line a figure. It is put into the appliance as
// part of an archive beside the image.
//
//	runner RUNS short   what shows that all can be measured
//	runner RUNS         everything, starts and I/O so many times
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

	"quantavirt/qemu-tests/bench/figure"
	"quantavirt/qemu-tests/guest/first"
)

const dir = "/bench"

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("bench-error", strings.ReplaceAll(err.Error(), "\n", "; "))
	}
}

func run(args []string) error {
	if len(args) == 4 && args[0] == "io" {
		return ioPart(args[1], args[2:])
	}
	if len(args) < 1 || len(args) > 2 {
		return errors.New("usage: runner RUNS [short]")
	}
	runs, err := strconv.Atoi(args[0])
	if err != nil {
		return err
	}
	p := whole
	if len(args) == 2 {
		p = short
	}
	if err := os.WriteFile(kernels["first"], first.Kernel(), 0o644); err != nil {
		return err
	}
	if err := awaitDevices(); err != nil {
		return err
	}
	if err := prepareVMs(p.guests); err != nil {
		return err
	}
	var errs []error // one part that fails does not hide the others
	for range runs {
		errs = append(errs, measureStarts(p))
	}
	for range p.firmware {
		errs = append(errs, measureFirmware())
	}
	errs = append(errs, measureTimers(p.periods), inNamespace(p.io, strconv.Itoa(p.ms), strconv.Itoa(runs)))
	return errors.Join(errs...)
}

// plan is what is measured.
type plan struct {
	monitors []string
	guests   []string // of measureStarts
	firmware int      // how often
	periods  int      // of the timer, 1 ms each
	io       string   // what ioPart does
	ms       int      // of each kind of I/O
}

var (
	whole = plan{figure.Monitors, []string{"first", "pvh", "bzimage"}, 3, 5000, "all", 1000}
	short = plan{[]string{figure.HV, figure.MicroVM}, []string{"first", "pvh"}, 0, 1000, "hv", 50}
)

// ioPart is what inNamespace starts: which, and the milliseconds and rounds.
func ioPart(which string, numbers []string) error {
	ms, err := strconv.Atoi(numbers[0])
	if err != nil {
		return err
	}
	rounds, err := strconv.Atoi(numbers[1])
	if err != nil {
		return err
	}
	if err := prepareIO(); err != nil {
		return err
	}
	if which == "hv" {
		return measureIO([]string{figure.HV}, []int{1}, ms)
	}
	var errs []error
	for range rounds {
		errs = append(errs, measureIO(figure.Monitors, []int{1, 4}, ms))
	}
	return errors.Join(errs...)
}

// names of the figures by the name of the guest.
var names = map[string]string{"first": figure.First, "pvh": figure.PVH, "bzimage": figure.BzImage}

// measureStarts starts every guest once with every monitor.
func measureStarts(p plan) error {
	var errs []error
	for _, guest := range p.guests {
		for _, monitor := range p.monitors {
			start, text := starter(startVM), guestReady
			if monitor != figure.HV {
				start = startQEMU(monitor)
			}
			if guest == "first" {
				text = "!"
			}
			seen := func(ms float64, pid int) error {
				tell(figure.Figure{Monitor: monitor, Name: names[guest], Unit: figure.Milliseconds, Value: ms})
				if guest != "pvh" {
					return nil
				}
				kib, err := beyondRAM(pid)
				if err == nil {
					tell(figure.Figure{Monitor: monitor, Name: figure.Memory, Unit: figure.MiB, Value: float64(kib) / 1024})
				}
				return err
			}
			err := start(guest, text, seen)
			if err != nil { // under emulation a guest is lost now and then: docs/soak.md
				err = start(guest, text, seen)
			}
			if err != nil {
				errs = append(errs, fmt.Errorf("%s of %s, twice: %w", guest, monitor, err))
			}
		}
	}
	return errors.Join(errs...)
}

// tell prints a figure.
func tell(f figure.Figure) {
	_ = json.NewEncoder(os.Stdout).Encode(f) // the console: what fails there is seen outside
}

// awaitDevices waits for modules, which PID 1 loads beside everything else.
func awaitDevices() error {
	tick := time.NewTicker(100 * time.Millisecond)
	defer tick.Stop()
	for _, device := range []string{"kvm", "vhost-net", "vhost-vsock", "net/tun"} {
		for i := 0; ; i++ {
			_, err := os.Stat("/dev/" + device)
			if err == nil {
				break
			}
			if i == 600 {
				return err
			}
			<-tick.C
		}
	}
	return nil
}

// starter starts a guest, one of kernels, waits until it says text, calls seen
// with the milliseconds since the start call and the process of the monitor, and
// ends it.
type starter func(guest, text string, seen func(ms float64, pid int) error) error

const (
	memory     = "192M"
	cmdline    = "console=ttyS0 quiet agent=ttyS0"
	guestReady = "guest: ready" // what its agent says
)

// kernels by the name of the guest.
var kernels = map[string]string{"first": dir + "/first", "pvh": dir + "/vmlinux", "bzimage": dir + "/vmlinuz"}

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
