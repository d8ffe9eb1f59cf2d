package vm

import (
	"context"
	"io"
	"os"

	"quantavirt/hv/kvm"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// Real is the VMM of package hv/vmm.
type Real struct{}

// Spawn starts a VM process.
func (Real) Spawn(ctx context.Context, s vmm.Spec) (Process, error) {
	p, err := vmm.Spawn(ctx, s)
	if err != nil {
		return nil, err
	}
	return process{p}, nil
}

// Adopt takes over a VM process of an earlier daemon.
func (Real) Adopt(ctx context.Context, s vmm.AdoptSpec) (Process, vmm.Info, error) {
	p, info, err := vmm.Adopt(ctx, s)
	if err != nil {
		return nil, vmm.Info{}, err
	}
	return process{p}, info, nil
}

// Cleanup removes what a VM left.
func (Real) Cleanup(ctx context.Context, runDir, name, cgroup string) error {
	return vmm.Cleanup(ctx, runDir, name, cgroup)
}

type process struct{ *vmm.Process }

func (p process) PID() int { return p.Process.PID }

func (p process) Control() Control { return client{p.Client()} }

type client struct{ *vmm.Client }

func (c client) Console(ctx context.Context, name string) (io.ReadWriteCloser, error) {
	return c.Client.Console(ctx, name)
}

// HostCPU lists the CPUID leaves that the node's CPU and KVM offer to guests.
func HostCPU() ([]kvm.CPUIDEntry, error) {
	f, err := os.OpenFile("/dev/kvm", os.O_RDWR, 0)
	if err != nil {
		return nil, qverr.New(qverr.NoVMX, "open KVM: %w", err)
	}
	defer f.Close()
	system, err := kvm.Open(f)
	if err != nil {
		return nil, err
	}
	return system.SupportedCPUID()
}
