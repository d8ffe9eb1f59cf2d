package vm

import (
	"context"
	"errors"
	"io"
	"path/filepath"
	"slices"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/qverr"
)

// consoleOf is the console or port that a request means: the named one or the VM's own.
func consoleOf(c *spec.VMConfig, device string) (string, error) {
	if device == "" {
		device = string(c.Console)
	}
	if device == vmm.ConsoleSerial || device == vmm.ConsoleVirtio || slices.Contains(c.ConsolePorts, device) {
		return device, nil
	}
	return "", qverr.New(qverr.NoEnt, "VM %s has no console %.64q", c.Name, device)
}

// Console attaches to a console of a running VM; QV_ERR_STATE when it does not
// run.
func (s *Service) Console(ctx context.Context, name, device string) (io.ReadWriteCloser, error) {
	r, console, err := s.running(name, device)
	if err != nil {
		return nil, err
	}
	conn, err := r.proc.Control().Console(ctx, console)
	if err != nil {
		return nil, coded(qverr.Generic, err, "attach to VM %s", name)
	}
	return conn, nil
}

func (s *Service) running(name, device string) (*run, string, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.find(name)
	if err != nil {
		return nil, "", err
	}
	if m.run == nil && hasProcess(m.rec.State) {
		return nil, "", stuck(name)
	}
	if m.run == nil {
		return nil, "", qverr.New(qverr.State, "VM %s has no process: it is %s", name, m.rec.State).With("state", string(m.rec.State))
	}
	console, err := consoleOf(&m.rec.Config, device)
	return m.run, console, err
}

// Stats reads what a VM uses; QV_ERR_STATE when it does not run.
func (s *Service) Stats(ctx context.Context, name string) (spec.VMStats, error) {
	r, _, err := s.running(name, "")
	if err != nil {
		return spec.VMStats{}, err
	}
	v, err := r.proc.Control().Stats(ctx)
	if err != nil {
		return spec.VMStats{}, coded(qverr.Generic, err, "stats of VM %s", name)
	}
	host, err := r.proc.Host()
	if err != nil {
		return spec.VMStats{}, coded(qverr.Generic, err, "stats of VM %s", name)
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, err := s.find(name)
	if err != nil {
		return spec.VMStats{}, err
	}
	cpu := s.cgroupTable(name, "cpu.stat")
	return spec.VMStats{
		State: m.rec.State, Time: v.Time.UTC(), UptimeSeconds: v.UptimeSeconds, VMM: v,
		CPU: spec.VMCPUStats{UsageUs: cpu["usage_usec"], UserUs: cpu["user_usec"], SystemUs: cpu["system_usec"], StealUs: host.Steal},
		Memory: spec.VMMemoryStats{
			BeyondBytes:  host.Beyond(),
			CurrentBytes: s.cgroupValue(name, "memory.current"), LimitBytes: m.limit, GuestBytes: int64(m.rec.Config.Memory.Size),
		},
	}, nil
}

// ConsoleLog is what the ring of a console keeps, also of a VM that does not
// run.
func (s *Service) ConsoleLog(name, device string) ([]byte, error) {
	s.mu.Lock()
	m, err := s.find(name)
	console := ""
	if err == nil {
		console, err = consoleOf(&m.rec.Config, device)
	}
	ports := err == nil && slices.Contains(m.rec.Config.ConsolePorts, console)
	s.mu.Unlock()
	if err != nil {
		return nil, err
	}
	if ports {
		return nil, qverr.New(qverr.Inval, "port %s of VM %s keeps nothing: attach to it", console, name)
	}
	return s.readConsole(name, console)
}

func (s *Service) readConsole(name, console string) ([]byte, error) {
	data, err := ring.Read(filepath.Join(s.consoleDir(name), console))
	if errors.Is(err, qverr.NoEnt) {
		return nil, nil // it never ran
	}
	return data, err
}
