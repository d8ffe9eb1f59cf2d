package hostpci

import (
	"context"
	"fmt"
	"log/slog"
	"slices"
	"strings"
	"sync"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
)

// Cards is the node's own use of its QUAC 100 cards.
type Cards interface {
	// Addresses waits until PID 1 has looked for cards, and lists those that can be used.
	Addresses(ctx context.Context) ([]string, error)
	// Lend takes a card from the node's cryptography for a VM. When it returns the node
	// does not have it open.
	Lend(ctx context.Context, address, vm string)
	// Return brings a card that was lent back into service.
	Return(ctx context.Context, address string)
}

// Lent is a function that a VM has.
type Lent struct {
	Address string `json:"address"`
	Driver  string `json:"driver,omitempty"` // that the function gets back
	Card    bool   `json:"card,omitempty"`
}

// Service is all PCI functions of the node.
type Service struct {
	log   *slog.Logger
	cards Cards
	tree  tree
	bus   vfio.Sysfs
	open  func(addresses []string) (*vfio.Assignment, error)

	ctx  context.Context
	stop context.CancelFunc
	wg   sync.WaitGroup

	mu     sync.Mutex
	vms    map[string]string // VM by address
	faults map[string]*faults
}

// New makes the service. Close ends it; what VMs have stays theirs.
func New(log *slog.Logger, cards Cards) *Service {
	return newService(log, cards, tree{"/sys", "/proc"}, vfio.Sysfs{Root: "/sys"})
}

func newService(log *slog.Logger, cards Cards, t tree, bus vfio.Sysfs) *Service {
	ctx, stop := context.WithCancel(context.Background())
	return &Service{log: log, cards: cards, tree: t, bus: bus, open: vfio.Assign, ctx: ctx, stop: stop, vms: map[string]string{}, faults: map[string]*faults{}}
}

// Close waits for what is under way.
func (s *Service) Close() {
	s.stop()
	s.wg.Wait()
}

// List shows all functions by address, and for each why no VM could have it now.
func (s *Service) List() ([]spec.SystemPCI, error) {
	all, err := s.tree.list()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]spec.SystemPCI, 0, len(all))
	for i := range all {
		f := &all[i]
		p := spec.SystemPCI{Address: f.address, Class: fmt.Sprintf("%06x", f.class), ClassName: className(f.class),
			Vendor: fmt.Sprintf("%04x", f.vendor), Device: fmt.Sprintf("%04x", f.device), Driver: f.driver, IOMMUGroup: f.group,
			Uses: f.uses, VM: s.vms[f.address]}
		for _, m := range f.members {
			if m != f.address {
				p.GroupMembers = append(p.GroupMembers, m)
			}
		}
		if problem := initapi.NewProblem(s.whyGroup(all, f)); problem != nil {
			p.Problem = *problem
		}
		p.Assignable = p.Problem.Code == 0
		out = append(out, p)
	}
	return out, nil
}

// Reserve finds the functions that a VM wants, by address, and a card if it wants any,
// and keeps them for it. Nothing happens to them yet. NoDev, NoIOMMU, Busy,
// QUACNotFound: why it cannot have them.
func (s *Service) Reserve(ctx context.Context, vm string, addresses []string, card bool) ([]Lent, error) {
	var cards []string
	if s.cards != nil {
		var err error
		if cards, err = s.cards.Addresses(ctx); err != nil {
			return nil, err
		}
	}
	all, err := s.tree.list()
	if err != nil {
		return nil, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	wanted := slices.Clone(addresses)
	if card && !slices.ContainsFunc(cards, func(c string) bool { return slices.Contains(wanted, c) }) {
		address, err := s.freeCard(all, cards)
		if err != nil {
			return nil, err
		}
		wanted = append(wanted, address)
	}
	var lent []Lent
	for _, address := range wanted {
		i := slices.IndexFunc(all, func(f function) bool { return f.address == address })
		if i < 0 {
			return nil, qverr.New(qverr.NoDev, "the machine has no PCI function %s", address).WithHint("see them with: quantavirt system pci")
		}
		if err := s.why(all, &all[i], wanted); err != nil {
			return nil, err
		}
		lent = append(lent, Lent{Address: address, Driver: all[i].driver, Card: slices.Contains(cards, address)})
	}
	for _, l := range lent {
		s.vms[l.Address] = vm
	}
	return lent, nil
}

// freeCard is the first that nobody has; it needs the lock.
func (s *Service) freeCard(all []function, cards []string) (string, error) {
	var first error
	for _, address := range cards {
		for i := range all {
			if all[i].address != address {
				continue
			}
			err := s.why(all, &all[i], []string{address})
			if err == nil {
				return address, nil
			}
			if first == nil {
				first = err
			}
		}
	}
	if first != nil {
		return "", first
	}
	return "", qverr.New(qverr.QUACNotFound, "the node has no QUAC 100 that can be given to a VM")
}

// whyGroup is why a VM cannot have f with all that goes with it; it needs the lock.
func (s *Service) whyGroup(all []function, f *function) error {
	if f.group < 0 || f.bridge() {
		return s.why(all, f, nil)
	}
	var group []*function
	var wanted []string
	for i := range all {
		if o := &all[i]; slices.Contains(f.members, o.address) && !o.bridge() {
			group, wanted = append(group, o), append(wanted, o.address)
		}
	}
	err := s.why(all, f, wanted)
	for i := 0; i < len(group) && err == nil; i++ {
		err = s.why(all, group[i], wanted)
	}
	return err
}

// why a VM that wants these functions cannot have f; it needs the lock.
func (s *Service) why(all []function, f *function, wanted []string) error {
	switch holder := s.vms[f.address]; {
	case holder != "":
		return qverr.New(qverr.Busy, "VM %s has %s", holder, f.address).With("vm", holder)
	case f.bridge():
		return qverr.New(qverr.Unsupported, "%s is a bridge, which no VM can have", f.title())
	case f.group < 0:
		return qverr.New(qverr.NoIOMMU, "%s is in no IOMMU group: nothing would keep it from the memory of others", f.title())
	case len(f.uses) > 0:
		return qverr.New(qverr.Busy, "%s is in use by the node: %s", f.title(), strings.Join(f.uses, ", ")).With("uses", f.uses)
	}
	var others []string
	for i := range all {
		o := &all[i]
		if !slices.Contains(f.members, o.address) || slices.Contains(wanted, o.address) || o.harmless() {
			continue
		}
		if holder := s.vms[o.address]; holder != "" {
			return qverr.New(qverr.Busy, "VM %s has %s, which is in the same IOMMU group %d as %s", holder, o.address, f.group, f.address).With("vm", holder)
		}
		others = append(others, o.title())
	}
	if len(others) > 0 {
		return qverr.New(qverr.Busy, "%s is in IOMMU group %d together with %s: the IOMMU cannot keep them apart, so a VM has all of them or none",
			f.title(), f.group, strings.Join(others, ", ")).With("iommu_group", f.group).
			WithHint("name all of them in pci of the VM, or move the device to another slot")
	}
	return nil
}

// Take has the node's own drivers let go of functions, and opens them for their VM.
func (s *Service) Take(ctx context.Context, vm string, lent []Lent) (*vfio.Assignment, error) {
	var addresses []string
	for _, l := range lent {
		if l.Card && s.cards != nil {
			s.cards.Lend(ctx, l.Address, vm)
		}
		if err := s.bus.Take(l.Address); err != nil {
			return nil, qverr.New(qverr.Busy, "take %s from driver %q for VM %s: %w", l.Address, l.Driver, vm, err)
		}
		addresses = append(addresses, l.Address)
	}
	return s.open(addresses)
}

// Adopted says what a VM has that was started by an earlier daemon.
func (s *Service) Adopted(vm string, lent []Lent) {
	s.mu.Lock()
	for _, l := range lent {
		s.vms[l.Address] = vm
	}
	s.mu.Unlock()
	for _, l := range lent {
		if l.Card && s.cards != nil {
			s.cards.Lend(s.ctx, l.Address, vm)
		}
	}
}

// Return gives back what a VM had, which does not run any more: drivers are back when it
// returns, cards serve soon after.
func (s *Service) Return(vm string, lent []Lent) {
	for _, l := range lent {
		// The kernel has reset the function as the VM's process ended.
		if err := s.bus.GiveBack(l.Address, l.Driver); err != nil {
			s.log.Error("give a PCI function back to the node", "address", l.Address, "driver", l.Driver, "err", qverr.New(qverr.Busy, "%w", err))
		}
	}
	s.mu.Lock()
	for _, l := range lent {
		if s.vms[l.Address] == vm {
			delete(s.vms, l.Address)
		}
		delete(s.faults, l.Address)
	}
	s.mu.Unlock()
	for _, l := range lent {
		if l.Card && s.cards != nil {
			s.wg.Go(func() { s.cards.Return(s.ctx, l.Address) })
		}
	}
}
