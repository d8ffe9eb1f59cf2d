package vm

import (
	"context"
	"slices"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/hostpci"
	"quantavirt/appliance/task"
	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// checkPCI refuses functions of the node that stand twice, or beside what moves guest
// memory: VFIO pins all of it, and a page that the balloon has given back would stay the
// device's.
func checkPCI(c *spec.VMConfig) error {
	addresses := addressesOf(c)
	for i, a := range addresses {
		if slices.Contains(addresses[:i], a) {
			return invalid(indexed("pci", i, ".address"), "%s stands twice", a)
		}
	}
	if len(addresses) > config.MaxPCI {
		return qverr.New(qverr.Limit, "pci: %d functions, a VM has at most %d", len(addresses), config.MaxPCI).With("path", "pci")
	}
	if wantsFunctions(c) && c.Memory.Balloon {
		return invalid("memory.balloon", "a VM with passthrough (pci, pqc.quac100) has all its memory pinned, which a balloon cannot give back")
	}
	return nil
}

func addressesOf(c *spec.VMConfig) []string {
	var list []string
	for _, p := range c.PCI {
		list = append(list, p.Address)
	}
	return list
}

func wantsCard(c *spec.VMConfig) bool { return c.PQC.Quac100 == spec.PQCConfigQuac100Passthrough }

func wantsFunctions(c *spec.VMConfig) bool { return len(c.PCI) > 0 || wantsCard(c) }

// reserve keeps for a VM what it wants of the node, if it wants any.
func (s *Service) reserve(ctx context.Context, name string) ([]hostpci.Lent, error) {
	s.mu.Lock()
	m, err := s.find(name)
	if err != nil {
		s.mu.Unlock()
		return nil, err
	}
	c := m.rec.Config
	s.mu.Unlock()
	if !wantsFunctions(&c) {
		return nil, nil
	}
	return s.PCI.Reserve(ctx, name, addressesOf(&c), wantsCard(&c))
}

// takeFunctions readies what was reserved and opens it for the VM.
func (s *Service) takeFunctions(ctx context.Context, m *machine, plan *vmm.Spec, lent []hostpci.Lent, p *task.Progress) error {
	if len(lent) == 0 {
		return nil
	}
	p.Phase("devices of the node")
	a, err := s.PCI.Take(ctx, m.rec.Config.Name, lent)
	if err != nil {
		return err
	}
	var addresses []string
	for _, l := range lent {
		addresses = append(addresses, l.Address)
	}
	plan.AddPCI(addresses, a)
	return nil
}

// adoptFunctions keeps what a VM of an earlier daemon has; it needs the lock.
func (s *Service) adoptFunctions(m *machine) {
	if len(m.rec.Lent) > 0 {
		s.PCI.Adopted(m.rec.Config.Name, m.rec.Lent)
	}
}

// returnFunctions gives the node back what a VM had that does not run.
func (s *Service) returnFunctions(name string, lent []hostpci.Lent) {
	if len(lent) > 0 {
		s.PCI.Return(name, lent)
	}
}
