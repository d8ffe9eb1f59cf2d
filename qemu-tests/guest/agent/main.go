// Command agent is the init of the test guest: it loads the modules of
// /modules, mounts what it needs, says "guest: ready" on its console and then
// answers each line "@TAG COMMAND …" with one line, "@TAG ok …" or "@TAG error …".
// With journal=DEVICE on the kernel command line it keeps a journal on that disk.
package main

import (
	"bufio"
	"fmt"
	"maps"
	"os"
	"strings"
	"time"

	"golang.org/x/sys/unix"
)

func main() {
	started := uptime()
	mounts()
	loadModules("/modules")
	console, err := os.OpenFile(consolePath(), os.O_RDWR, 0)
	if err != nil {
		console = os.Stdout
	}
	raw(int(console.Fd()))
	go powerButton()
	table := maps.Clone(commands)
	if device := word("journal"); device != "" {
		j := startJournal(device)
		table["journal"], table["check"] = j.acknowledged, j.check
	}
	fmt.Fprintf(console, "guest: ready init=%.2f now=%.2f cpus=%d\n", started, uptime(), cpus())
	lines := bufio.NewScanner(console)
	for lines.Scan() {
		words := strings.Fields(lines.Text())
		if len(words) < 2 {
			continue
		}
		command, ok := table[words[1]]
		if !ok {
			fmt.Fprintf(console, "%s error no such command\n", words[0])
			continue
		}
		answer, err := command(words[2:])
		if err != nil {
			fmt.Fprintf(console, "%s error %v\n", words[0], err)
			continue
		}
		fmt.Fprintf(console, "%s ok %s\n", words[0], answer)
	}
	select {} // an init must not end
}

// consolePath is the device that the agent talks on: the word agent= of the
// kernel command line, else the virtio console.
func consolePath() string {
	if device := word("agent"); device != "" {
		return "/dev/" + device
	}
	return "/dev/hvc0"
}

// word is the value of a word of the kernel command line, "" without it.
func word(name string) string {
	cmdline, _ := os.ReadFile("/proc/cmdline")
	for word := range strings.FieldsSeq(string(cmdline)) {
		if value, ok := strings.CutPrefix(word, name+"="); ok {
			return value
		}
	}
	return ""
}

// raw switches echo and line editing off, so that the test reads only answers.
func raw(fd int) {
	t, err := unix.IoctlGetTermios(fd, unix.TCGETS)
	if err != nil {
		return
	}
	t.Lflag &^= unix.ECHO
	t.Oflag &^= unix.ONLCR
	t.Iflag |= unix.ICRNL
	_ = unix.IoctlSetTermios(fd, unix.TCSETS, t)
}

func mounts() {
	for _, m := range []struct{ source, target, kind string }{
		{"proc", "/proc", "proc"},
		{"sysfs", "/sys", "sysfs"},
		{"devtmpfs", "/dev", "devtmpfs"},
		{"tmpfs", "/tmp", "tmpfs"},
	} {
		_ = os.MkdirAll(m.target, 0o755)
		_ = unix.Mount(m.source, m.target, m.kind, 0, "")
	}
}

// loadModules loads the files named in dir/order.
func loadModules(dir string) {
	order, err := os.ReadFile(dir + "/order")
	if err != nil {
		return
	}
	for name := range strings.FieldsSeq(string(order)) {
		f, err := os.Open(dir + "/" + name)
		if err != nil {
			continue
		}
		if err := unix.FinitModule(int(f.Fd()), "", 0); err != nil {
			fmt.Printf("agent: %s: %v\n", name, err)
		}
		_ = f.Close()
	}
}

func uptime() float64 {
	var ts unix.Timespec
	_ = unix.ClockGettime(unix.CLOCK_BOOTTIME, &ts)
	return (time.Duration(ts.Nano())).Seconds()
}

func cpus() int {
	var set unix.CPUSet
	if err := unix.SchedGetaffinity(0, &set); err != nil {
		return 0
	}
	return set.Count()
}
