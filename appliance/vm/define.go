package vm

import (
	"context"
	"encoding/json"
	"errors"
	"io/fs"
	"os"
	"path/filepath"

	"github.com/google/uuid"

	"quantavirt/appliance/api/schema"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
)

// firstCID is the first vsock context id of guests: 0 to 2 are reserved.
const firstCID = 3

// macOf is the MAC of network card i: the configured one, or one made from the
// VM's uuid.
func macOf(c *spec.VMConfig, i int) string {
	if mac := c.Network[i].MAC; mac != "" {
		return mac
	}
	return netstack.MACFor(vmUUID(c), i).String()
}

func vmUUID(c *spec.VMConfig) uuid.UUID {
	id, err := uuid.Parse(c.UUID)
	if err != nil {
		return uuid.NewSHA1(uuid.Nil, []byte(c.Name))
	}
	return id
}

func portOf(c *spec.VMConfig, i int) string { return netstack.PortID(vmUUID(c), i) }

func tapOf(c *spec.VMConfig, i int) string { return netstack.TAPName(portOf(c, i)) }

// Create defines a VM from a document. With dryRun it only says what would be
// made.
func (s *Service) Create(tree any, dryRun bool) (spec.VM, error) {
	set, err := s.Schema()
	if err != nil {
		return spec.VM{}, qverr.New(qverr.Generic, "%w", err)
	}
	c, err := Parse(set, tree)
	if err != nil {
		return spec.VM{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	if _, err := s.find(c.Name); err == nil {
		return spec.VM{}, qverr.New(qverr.Exist, "there is already a VM %s", c.Name)
	}
	if err := s.checkOthers(&c); err != nil {
		return spec.VM{}, err
	}
	if err := s.checkReferences(&c); err != nil {
		return spec.VM{}, err
	}
	if len(s.vms) >= maxVMs {
		return spec.VM{}, qverr.New(qverr.Limit, "the node has %d VMs, which is the most", maxVMs)
	}
	t := now()
	m := &machine{rec: record{Config: c, State: spec.VMStateCREATED, Since: t, CreatedAt: t, UpdatedAt: t, CID: s.freeCID(), Generation: uuid.NewString()}}
	if dryRun {
		return s.show(m), nil
	}
	if err := s.save(m); err != nil {
		return spec.VM{}, err
	}
	s.vms[c.Name] = m
	s.writeConfig(&c)
	return s.show(m), nil
}

// checkOthers refuses what another VM has already; it needs the lock.
func (s *Service) checkOthers(c *spec.VMConfig) error {
	for name, other := range s.vms {
		if name == c.Name {
			continue
		}
		if other.rec.Config.UUID == c.UUID {
			return qverr.New(qverr.Exist, "VM %s has the uuid %s already", name, c.UUID).With("path", "uuid")
		}
		for i := range c.Network {
			for j := range other.rec.Config.Network {
				if macOf(c, i) == macOf(&other.rec.Config, j) {
					return qverr.New(qverr.NetMAC, "%s: VM %s has the MAC address %s already", indexed("network", i, ".mac"), name, macOf(c, i)).
						With("path", indexed("network", i, ".mac"))
				}
			}
		}
	}
	return nil
}

// checkReferences holds the names in a configuration against what exists.
func (s *Service) checkReferences(c *spec.VMConfig) error {
	check := func(path string, err error) error {
		if err == nil {
			return nil
		}
		return qverr.New(qverr.CodeOf(err), "%s: %w", path, err).With("path", path)
	}
	image := func(id string, kind spec.ImageKind) error {
		have, err := s.Storage.ImageKind(id)
		if err == nil && have != kind {
			return qverr.New(qverr.Config, "image %s is of kind %s, not %s", id, have, kind)
		}
		return err
	}
	if c.Boot.Kernel == "" {
		return s.checkDevices(c, check)
	}
	if err := check("boot.kernel", image(c.Boot.Kernel, spec.ImageKindKernel)); err != nil {
		return err
	}
	if c.Boot.Initrd != "" {
		if err := check("boot.initrd", image(c.Boot.Initrd, spec.ImageKindInitrd)); err != nil {
			return err
		}
	}
	return s.checkDevices(c, check)
}

// checkDevices is checkReferences for disks and networks.
func (s *Service) checkDevices(c *spec.VMConfig, check func(path string, err error) error) error {
	for i, d := range c.Storage {
		var err error
		field := ".disk"
		if d.Disk != "" {
			err = s.Storage.HasDisk(d.Disk)
		} else {
			field = ".path"
			_, err = s.Storage.CheckPath(d.Path)
		}
		if err := check(indexed("storage", i, field), err); err != nil {
			return err
		}
	}
	for i, n := range c.Network {
		network, err := s.Network.Get(n.Network)
		if err := check(indexed("network", i, ".network"), err); err != nil {
			return err
		}
		if n.MTU > network.MTU {
			path := indexed("network", i, ".mtu")
			return qverr.New(qverr.NetMTU, "%s: %d is more than the %d of network %s", path, n.MTU, network.MTU, n.Network).With("path", path)
		}
	}
	return nil
}

// freeCID needs the lock.
func (s *Service) freeCID() uint32 {
	used := make(map[uint32]bool, len(s.vms))
	for _, m := range s.vms {
		used[m.rec.CID] = true
	}
	cid := uint32(firstCID)
	for used[cid] {
		cid++
	}
	return cid
}

// Update applies a JSON merge patch to the configuration of a VM that does not
// run; of one that runs, only what it can change (see live.go). Name and uuid stay.
func (s *Service) Update(ctx context.Context, name string, patch map[string]any) (spec.VM, error) {
	set, err := s.Schema()
	if err != nil {
		return spec.VM{}, qverr.New(qverr.Generic, "%w", err)
	}
	flat, _, err := flatten(patch)
	if err != nil {
		return spec.VM{}, err
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	m, refused := s.claim(name, ActUpdate)
	if m == nil || refused != nil && m.run == nil {
		return spec.VM{}, refused
	}
	c, err := s.patched(set, m, flat.(map[string]any))
	if err != nil {
		return spec.VM{}, err
	}
	if refused != nil {
		if !onlyLive(&m.rec.Config, &c) {
			return spec.VM{}, refused
		}
		if err := s.changeLive(ctx, m, &c); err != nil {
			return spec.VM{}, err
		}
	}
	before := m.rec
	m.rec.Config, m.rec.UpdatedAt = c, now()
	if err := s.save(m); err != nil {
		m.rec = before
		return spec.VM{}, err
	}
	s.writeConfig(&c)
	return s.show(m), nil
}

// patched is the configuration of m with a patch applied, checked; it needs the lock.
func (s *Service) patched(set *schema.Set, m *machine, patch map[string]any) (spec.VMConfig, error) {
	old := m.rec.Config
	var tree any
	data, err := json.Marshal(old)
	if err == nil {
		err = json.Unmarshal(data, &tree)
	}
	if err != nil {
		return spec.VMConfig{}, qverr.New(qverr.Generic, "configuration of VM %s: %w", old.Name, err)
	}
	c, err := Parse(set, mergePatch(tree, patch))
	switch {
	case err != nil:
		return spec.VMConfig{}, err
	case c.Name != old.Name:
		return spec.VMConfig{}, invalid("name", "a VM cannot be renamed")
	case c.UUID != old.UUID:
		return spec.VMConfig{}, invalid("uuid", "a VM keeps its uuid")
	}
	if err := s.checkOthers(&c); err != nil {
		return spec.VMConfig{}, err
	}
	return c, s.checkReferences(&c)
}

// forget removes a VM without a process from the node; it needs the lock.
func (s *Service) forget(m *machine) error {
	name := m.rec.Config.Name
	if err := s.DB.Delete(store.VMs, name); err != nil {
		return err
	}
	delete(s.vms, name)
	m.rec.State = spec.VMStateDESTROYED
	for _, path := range []string{s.configPath(name), s.consoleDir(name), filepath.Join(s.RunDir, "vm", name)} {
		if err := os.RemoveAll(path); err != nil {
			s.Log.Error("remove what VM "+name+" leaves", "err", qverr.New(qverr.IO, "%w", err))
		}
	}
	return nil
}

func (s *Service) configPath(name string) string {
	return filepath.Join(s.DataDir, "configs", name+".json")
}

// writeConfig writes the copy of a configuration for people. The store decides,
// so a failure is only logged.
func (s *Service) writeConfig(c *spec.VMConfig) {
	path := s.configPath(c.Name)
	data, err := json.MarshalIndent(c, "", "  ")
	if err == nil {
		err = os.MkdirAll(filepath.Dir(path), 0o755)
	}
	if err == nil {
		err = os.WriteFile(path+".new", append(data, '\n'), 0o644)
	}
	if err == nil {
		err = os.Rename(path+".new", path)
	}
	if err != nil {
		s.Log.Error("write the configuration of VM "+c.Name, "err", qverr.New(qverr.IO, "%w", err))
	}
}

// SyncConfigs makes configs/ what the store says, once at start.
func (s *Service) SyncConfigs() {
	s.mu.Lock()
	defer s.mu.Unlock()
	for _, m := range s.vms {
		if _, err := os.Stat(s.configPath(m.rec.Config.Name)); errors.Is(err, fs.ErrNotExist) {
			s.writeConfig(&m.rec.Config)
		}
	}
	left, _ := filepath.Glob(s.configPath("*"))
	for _, path := range left {
		name := filepath.Base(path)
		if _, ok := s.vms[name[:len(name)-len(".json")]]; !ok {
			_ = os.Remove(path)
		}
	}
}
