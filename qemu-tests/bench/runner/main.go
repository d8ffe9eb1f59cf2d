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
	"syscall"
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
	if err := os.WriteFile(dir+"/first", firstKernel(), 0o644); err != nil {
		fmt.Println("bench-error", err)
		return
	}
	awaitKVM()
	out := json.NewEncoder(os.Stdout)
	for range runs {
		for _, name := range []string{"hv", "microvm"} {
			m := measurement{Monitor: name}
			err := m.run(monitor(name, dir+"/first"), "!", func(ms float64, _ int) error { m.FirstInstruction = ms; return nil })
			if err == nil {
				err = m.run(monitor(name, dir+"/vmlinuz"), "guest: ready", func(ms float64, pid int) error {
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

// monitor is the command that starts a monitor with a kernel.
func monitor(name, kernel string) []string {
	if name == "hv" {
		return []string{"/bin/hv", "run", "--kernel", kernel, "--initrd", dir + "/initrd", "--memory", "192M", "--cpus", "1",
			"--console", "serial", "--cmdline", "console=ttyS0 quiet agent=ttyS0"}
	}
	return []string{dir + "/lib/ld-linux-x86-64.so.2", "--library-path", dir + "/lib", dir + "/qemu-system-x86_64", "-L", dir + "/share",
		"-M", "microvm,accel=kvm,memory-backend=mem", "-cpu", "host", "-nodefaults", "-no-user-config", "-nographic",
		"-object", "memory-backend-memfd,id=mem,size=192M", "-m", "192M", "-smp", "1", "-serial", "stdio",
		"-kernel", kernel, "-initrd", dir + "/initrd", "-append", "console=ttyS0 quiet agent=ttyS0"}
}

// run starts a monitor, waits until its guest says text, calls seen with the
// time and the process, and ends it.
func (m *measurement) run(command []string, text string, seen func(ms float64, pid int) error) error {
	cmd := exec.Command(command[0], command[1:]...)
	stdout, err := cmd.StdoutPipe()
	if err != nil {
		return err
	}
	var errText strings.Builder
	cmd.Stderr = &errText
	in, err := cmd.StdinPipe() // kept open: end of input may end a monitor
	if err != nil {
		return err
	}
	defer in.Close()
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true} // hv run has a child: the VM process
	started := monotonic()
	if err := cmd.Start(); err != nil {
		return err
	}
	defer func() {
		for _, child := range children(cmd.Process.Pid) {
			_ = syscall.Kill(child, syscall.SIGKILL)
		}
		_ = cmd.Process.Kill()
		_ = cmd.Wait()
	}()
	limit := time.AfterFunc(2*time.Minute, func() { _ = cmd.Process.Kill() })
	defer limit.Stop()
	if err := await(stdout, text); err != nil {
		return fmt.Errorf("%w: %s", err, errText.String())
	}
	return seen((monotonic()-started).Seconds()*1000, cmd.Process.Pid)
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

// beyondRAM is the proportional set size of the VM process without its memfd
// mapping, the guest's RAM. hv run is not that process but its parent.
func beyondRAM(pid int) (int64, error) {
	processes := children(pid)
	if len(processes) == 0 {
		processes = []int{pid}
	}
	total := int64(0)
	for _, p := range processes {
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
