package vm

import (
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// headroom is what the node keeps for itself: the kernel, PID 1 and the daemon.
func headroom(total int64) int64 { return max(96<<20, total/32) }

// Committed is the memory that the processes of running VMs may use.
func (s *Service) Committed() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	committed, _ := s.committed()
	return committed
}

// Admissible is how much memory a further VM process, or a file in RAM, may
// take: what is available, less what running VMs have not taken yet of what
// they may, less the node's own.
func (s *Service) Admissible() int64 {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.admissible()
}

// committed needs the lock; used is what of it is taken already.
func (s *Service) committed() (limits, used int64) {
	for name, m := range s.vms {
		if m.limit == 0 {
			continue
		}
		limits += m.limit
		taken := s.cgroupValue(name, "memory.current")
		if memoryFrom(&m.rec.Config).HugePage != "" { // which a cgroup does not count
			taken += int64(m.rec.Config.Memory.Size)
		}
		used += min(taken, m.limit)
	}
	return limits, used
}

func (s *Service) admissible() int64 {
	total, available := s.Memory()
	limits, used := s.committed()
	return max(available-(limits-used)-headroom(total), 0)
}

// admit takes the memory of a VM, or refuses with QV_ERR_NOMEM; it needs the
// lock.
func (s *Service) admit(m *machine) error {
	need := vmm.MemoryLimit(int64(m.rec.Config.Memory.Size))
	left := s.admissible()
	if need > left {
		return qverr.New(qverr.NoMem, "VM %s needs %d MiB (guest memory and the VM process), %d MiB are left",
			m.rec.Config.Name, need>>20, left>>20).With("needed_bytes", need).With("left_bytes", left)
	}
	m.limit = need
	return nil
}

func (s *Service) cgroup(name string) string {
	if s.Cgroup == "" {
		return ""
	}
	return filepath.Join(s.Cgroup, name)
}

// cgroupValue reads a file of a VM's cgroup that holds one number; 0 when it is
// not there or "max".
func (s *Service) cgroupValue(name, file string) int64 {
	if s.Cgroup == "" {
		return 0
	}
	data, err := os.ReadFile(filepath.Join(s.cgroup(name), file))
	if err != nil {
		return 0
	}
	n, _ := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	return n
}

// cgroupTable reads a file of lines "key number".
func (s *Service) cgroupTable(name, file string) map[string]int64 {
	out := make(map[string]int64)
	if s.Cgroup == "" {
		return out
	}
	data, err := os.ReadFile(filepath.Join(s.cgroup(name), file))
	if err != nil {
		return out
	}
	for line := range strings.Lines(string(data)) {
		key, value, _ := strings.Cut(strings.TrimSpace(line), " ")
		out[key], _ = strconv.ParseInt(value, 10, 64)
	}
	return out
}
