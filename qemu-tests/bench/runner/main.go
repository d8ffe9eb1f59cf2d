// Command runner measures virtual machine monitors inside the appliance: it
// starts each of them in turn with the same guest and prints one JSON line a
// run. It is put into the appliance as part of an archive beside the image.
package main

import (
	"bufio"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"
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
	monitors := map[string][]string{
		"hv": {"/bin/hv", "run", "--kernel", dir + "/vmlinuz", "--initrd", dir + "/initrd", "--memory", "192M", "--cpus", "1",
			"--console", "serial", "--cmdline", "console=ttyS0 quiet agent=ttyS0"},
		"microvm": {dir + "/lib/ld-linux-x86-64.so.2", "--library-path", dir + "/lib", dir + "/qemu-system-x86_64", "-L", dir + "/share",
			"-M", "microvm,accel=kvm,memory-backend=mem", "-cpu", "host", "-nodefaults", "-no-user-config", "-nographic",
			"-object", "memory-backend-memfd,id=mem,size=192M", "-m", "192M", "-smp", "1", "-serial", "stdio",
			"-kernel", dir + "/vmlinuz", "-initrd", dir + "/initrd", "-append", "console=ttyS0 quiet agent=ttyS0"},
	}
	out := json.NewEncoder(os.Stdout)
	for range runs {
		for _, name := range []string{"hv", "microvm"} {
			m, err := measure(monitors[name])
			if err != nil {
				fmt.Printf("bench-error %s: %v\n", name, err)
				continue
			}
			m.Monitor = name
			_ = out.Encode(m)
		}
	}
	fmt.Println("bench-done")
}

func measure(command []string) (measurement, error) {
	var m measurement
	trace, err := armTrace()
	if err != nil {
		return m, err
	}
	cmd := exec.Command(command[0], command[1:]...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return m, err
	}
	var errText strings.Builder
	cmd.Stderr = &errText
	in, err := cmd.StdinPipe() // kept open: end of input may end a monitor
	if err != nil {
		return m, err
	}
	defer in.Close()
	started := monotonic()
	if err := cmd.Start(); err != nil {
		return m, err
	}
	defer func() {
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	limit := time.AfterFunc(3*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if err := await(stdout, "guest: ready"); err != nil {
		return m, fmt.Errorf("%w: %s", err, errText.String())
	}
	m.GuestInit = (monotonic() - started).Seconds() * 1000
	if first, err := trace.first(); err == nil {
		m.FirstInstruction = (first - started).Seconds() * 1000
	}
	m.BeyondRAM, err = beyondRAM(cmd.Process.Pid)
	return m, err
}

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

// trace catches the first entry into guest mode by the kernel's tracepoint.
type trace string

func armTrace() (trace, error) {
	const root = "/sys/kernel/tracing"
	if _, err := os.Stat(root + "/trace"); err != nil {
		if err := unix.Mount("tracefs", root, "tracefs", 0, ""); err != nil {
			return "", fmt.Errorf("mount tracefs: %w", err)
		}
	}
	// The trigger stops the tracer at its first event; a second one fails to be
	// set, which is as it should be.
	_ = os.WriteFile(root+"/events/kvm/kvm_entry/trigger", []byte("traceoff"), 0)
	for _, w := range []struct{ file, text string }{
		{"/trace_clock", "mono"}, {"/trace", ""}, {"/events/kvm/kvm_entry/enable", "1"}, {"/tracing_on", "1"},
	} {
		if err := os.WriteFile(root+w.file, []byte(w.text), 0); err != nil {
			return "", err
		}
	}
	return root + "/trace", nil
}

// first returns the time of the event. A line is "comm-pid [cpu] flags seconds: event".
func (t trace) first() (time.Duration, error) {
	text, err := os.ReadFile(string(t))
	if err != nil {
		return 0, err
	}
	for line := range strings.Lines(string(text)) {
		if strings.HasPrefix(line, "#") || !strings.Contains(line, "kvm_entry") {
			continue
		}
		for word := range strings.FieldsSeq(line) {
			if seconds, ok := strings.CutSuffix(word, ":"); ok && strings.Contains(seconds, ".") {
				v, err := strconv.ParseFloat(seconds, 64)
				if err == nil {
					return time.Duration(v * float64(time.Second)), nil
				}
			}
		}
	}
	return 0, errors.New("no entry into guest mode in the trace")
}

// beyondRAM is the proportional set size of the process without its largest
// memfd mapping, the guest's RAM. Children of the process count too.
func beyondRAM(pid int) (int64, error) {
	total := int64(0)
	for _, p := range append([]int{pid}, children(pid)...) {
		text, err := os.ReadFile(filepath.Join("/proc", strconv.Itoa(p), "smaps"))
		if err != nil {
			return 0, err
		}
		ram := false
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
	}
	return total, nil
}

func children(pid int) []int {
	var all []int
	lists, _ := filepath.Glob(fmt.Sprintf("/proc/%d/task/*/children", pid))
	for _, list := range lists {
		text, err := os.ReadFile(list)
		if err != nil {
			continue
		}
		for word := range strings.FieldsSeq(string(text)) {
			if child, err := strconv.Atoi(word); err == nil {
				all = append(append(all, child), children(child)...)
			}
		}
	}
	return all
}
