package vmm

import (
	"bufio"
	"bytes"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

// HostStats is what the host's kernel knows of a VM process. The process itself has no
// /proc in its jail.
type HostStats struct {
	Threads int `json:"threads"`
	// PSS is the proportional set size in bytes, of which GuestPSS is guest RAM.
	PSS      int64 `json:"pss_bytes"`
	GuestPSS int64 `json:"guest_pss_bytes"`
	// Steal is, by vCPU, how long its thread was ready to run and had no CPU, in
	// microseconds.
	Steal []int64 `json:"steal_us"`
}

// Beyond is the memory beyond guest RAM, in bytes.
func (h HostStats) Beyond() int64 { return h.PSS - h.GuestPSS }

// guestRAM is how the mapping of guest RAM is called, by hv/memory.
const guestRAM = "memfd:guest-ram"

// vcpuPrefix and the number of a vCPU are the name of its thread, given by hv/machine.
const vcpuPrefix = "vcpu"

// Host reads what the host's kernel knows of the process. It walks the process's page
// tables: that takes about a second for each terabyte that the guest touched.
func (p *Process) Host() (HostStats, error) { return readHost("/proc", p.PID) }

func readHost(proc string, pid int) (HostStats, error) {
	var h HostStats
	dir := filepath.Join(proc, strconv.Itoa(pid))
	fail := func(err error) (HostStats, error) {
		return HostStats{}, qverr.New(qverr.CodeOf(err), "statistics of process %d: %w", pid, err)
	}
	smaps, err := os.ReadFile(filepath.Join(dir, "smaps"))
	if err != nil {
		return fail(err)
	}
	if h.PSS, h.GuestPSS, err = parseSmaps(smaps); err != nil {
		return fail(err)
	}
	tasks, err := os.ReadDir(filepath.Join(dir, "task"))
	if err != nil {
		return fail(err)
	}
	h.Threads = len(tasks)
	for _, t := range tasks {
		// A thread may end meanwhile.
		if err := h.addThread(filepath.Join(dir, "task", t.Name())); err != nil && !os.IsNotExist(err) {
			return fail(err)
		}
	}
	return h, nil
}

func (h *HostStats) addThread(dir string) error {
	comm, err := os.ReadFile(filepath.Join(dir, "comm"))
	if err != nil {
		return err
	}
	number, ok := strings.CutPrefix(strings.TrimSpace(string(comm)), vcpuPrefix)
	id, err := strconv.Atoi(number)
	if !ok || err != nil || id < 0 || id > 1<<12 {
		return nil
	}
	steal, err := runDelay(filepath.Join(dir, "schedstat"))
	if err != nil {
		return err
	}
	if missing := id + 1 - len(h.Steal); missing > 0 {
		h.Steal = append(h.Steal, slices.Repeat([]int64{0}, missing)...)
	}
	h.Steal[id] += steal
	return nil
}

// runDelay is the second number of schedstat, in microseconds
// (Documentation/scheduler/sched-stats.rst).
func runDelay(path string) (int64, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) < 2 {
		return 0, fmt.Errorf("%s: %q: %w", path, data, fs.ErrInvalid)
	}
	ns, err := strconv.ParseInt(fields[1], 10, 64)
	return ns / 1000, err
}

// parseSmaps adds up the Pss lines of all mappings and of those of guest RAM, in bytes.
func parseSmaps(data []byte) (all, guest int64, err error) {
	inGuest := false
	for lines := bufio.NewScanner(bytes.NewReader(data)); lines.Scan(); {
		line := lines.Text()
		key, value, _ := strings.Cut(line, ":")
		switch {
		case key == "Pss":
			kb, err := strconv.ParseInt(strings.TrimSuffix(strings.TrimSpace(value), " kB"), 10, 64)
			if err != nil {
				return 0, 0, fmt.Errorf("smaps: %q: %w", line, err)
			}
			all += kb << 10
			if inGuest {
				guest += kb << 10
			}
		case strings.Contains(key, "-") && strings.Contains(key, " "): // "7f…-7f… rw-s …"
			inGuest = strings.Contains(line, guestRAM)
		}
	}
	return all, guest, nil
}
