package machine

import (
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// checkPinning refuses a vCPU whose CPUs this process may not use, before there are
// threads to pin.
func checkPinning(pinning [][]int) error {
	var mine unix.CPUSet
	if err := unix.SchedGetaffinity(0, &mine); err != nil {
		return qverr.New(qverr.Pin, "CPUs of this process: %w", err)
	}
	for vcpu, cpus := range pinning {
		for _, cpu := range cpus {
			if !mine.IsSet(cpu) {
				return qverr.New(qverr.Pin, "vCPU %d: the host has no CPU %d to pin it to", vcpu, cpu).With("vcpu", vcpu).With("cpu", cpu)
			}
		}
	}
	return nil
}

// pins are the host's CPUs for vCPU id, nil for any.
func (m *Machine) pins(id int) []int {
	if id < len(m.opts.CPU.Pinning) {
		return m.opts.CPU.Pinning[id]
	}
	return nil
}

// pin keeps the calling thread on cpus from now on.
func pin(cpus []int) error {
	var set unix.CPUSet
	for _, cpu := range cpus {
		set.Set(cpu)
	}
	if err := unix.SchedSetaffinity(0, &set); err != nil {
		return qverr.New(qverr.Pin, "pin a thread to CPUs %v: %w", cpus, err)
	}
	return nil
}
