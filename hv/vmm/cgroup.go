package vmm

import (
	"context"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Shares of the processes of a node in an out-of-memory kill: VMs go first.
const oomScoreAdj = 500

// MemoryLimit is the memory.max of a VM with guestBytes of RAM: guest RAM, the
// page tables over it (about 1/256), and 64 MiB for the process, the kernel's
// memory on its behalf and the page cache that its disks need to make progress.
// Admission counts with it.
func MemoryLimit(guestBytes int64) int64 { return guestBytes + guestBytes/128 + 64<<20 }

// makeCgroup makes the VM's cgroup with its limits and opens it. What an
// earlier VM of the name left is removed first.
func makeCgroup(ctx context.Context, spec *Spec) (*os.File, error) {
	if err := removeCgroup(ctx, spec.Cgroup); err != nil {
		return nil, err
	}
	if err := os.Mkdir(spec.Cgroup, 0o755); err != nil {
		return nil, qverr.New(qverr.VMStart, "cgroup of VM %s: %w", spec.Name, err)
	}
	limits := []struct{ file, value string }{
		{"memory.max", strconv.FormatInt(spec.memoryLimit(), 10)},
		{"memory.oom.group", "1"},
	}
	for _, l := range limits {
		if err := os.WriteFile(filepath.Join(spec.Cgroup, l.file), []byte(l.value), 0); err != nil {
			_ = os.Remove(spec.Cgroup)
			return nil, qverr.New(qverr.VMStart, "limit %s of VM %s: %w", l.file, spec.Name, err)
		}
	}
	if spec.CPUWeight != 0 || spec.CPULimit != 0 {
		if err := SetCPU(spec.Cgroup, spec.CPUWeight, spec.CPULimit); err != nil {
			_ = os.Remove(spec.Cgroup)
			return nil, err
		}
	}
	dir, err := os.OpenFile(spec.Cgroup, unix.O_PATH|unix.O_DIRECTORY, 0)
	if err != nil {
		_ = os.Remove(spec.Cgroup)
		return nil, qverr.New(qverr.VMStart, "cgroup of VM %s: %w", spec.Name, err)
	}
	return dir, nil
}

// SetCPU sets what share of the processors a VM's cgroup has, also while it runs:
// weight (0: the default of 100) against that of others, and limit in units of one
// CPU (0: none).
func SetCPU(cgroup string, weight uint64, limit float64) error {
	const period = 100_000 // µs
	most := "max"
	if limit > 0 {
		most = strconv.FormatInt(int64(limit*period), 10)
	}
	if weight == 0 {
		weight = 100
	}
	for _, l := range []struct{ file, value string }{
		{"cpu.weight", strconv.FormatUint(weight, 10)}, {"cpu.max", fmt.Sprintf("%s %d", most, period)},
	} {
		if err := os.WriteFile(filepath.Join(cgroup, l.file), []byte(l.value), 0); err != nil {
			return qverr.New(qverr.CodeOf(err), "%s of cgroup %s: %w", l.file, filepath.Base(cgroup), err)
		}
	}
	return nil
}

// removeCgroup kills what is left in a cgroup and removes it. It is no error
// when there is none.
func removeCgroup(ctx context.Context, dir string) error {
	if dir == "" {
		return nil
	}
	err := unix.Rmdir(dir)
	if err == nil || errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err := os.WriteFile(filepath.Join(dir, "cgroup.kill"), []byte("1"), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.CodeOf(err), "end what runs in %s: %w", dir, err)
	}
	ctx, cancel := context.WithTimeout(ctx, 5*time.Second)
	defer cancel()
	if err := waitEmpty(ctx, dir); err != nil {
		return qverr.New(qverr.Busy, "cgroup %s does not become empty: %w", dir, err)
	}
	if err := unix.Rmdir(dir); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.CodeOf(err), "remove cgroup %s: %w", dir, err)
	}
	return nil
}

// waitEmpty waits until no process is in the cgroup: the kernel announces a
// change of cgroup.events with POLLPRI.
func waitEmpty(ctx context.Context, dir string) error {
	f, err := os.Open(filepath.Join(dir, "cgroup.events"))
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return err
	}
	defer f.Close()
	buf := make([]byte, 256)
	for {
		n, err := f.ReadAt(buf, 0)
		if n == 0 && err != nil && !errors.Is(err, unix.ENODEV) {
			return err
		}
		if n == 0 || strings.Contains(string(buf[:n]), "populated 0") {
			return nil
		}
		if err := ctx.Err(); err != nil {
			return err
		}
		p := []unix.PollFd{{Fd: int32(f.Fd()), Events: unix.POLLPRI}}
		if _, err := unix.Poll(p, 100); err != nil && !errors.Is(err, unix.EINTR) {
			return err
		}
	}
}

// cgroupPID is the process of the VM: the one of its cgroup that is the child of
// none other in it. A VM process has no children, so there is just one.
func cgroupPID(dir string) (int, error) {
	data, err := os.ReadFile(filepath.Join(dir, "cgroup.procs"))
	if err != nil {
		return 0, err
	}
	fields := strings.Fields(string(data))
	if len(fields) == 0 {
		return 0, fs.ErrNotExist
	}
	return strconv.Atoi(fields[0])
}
