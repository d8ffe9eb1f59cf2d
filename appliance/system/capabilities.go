package system

import (
	"context"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/config"
	"quantavirt/hv/cpumodel"
	"quantavirt/hv/kvm"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// Limits of one VM, as the API tells them.
const (
	MaxVCPUs  = config.MaxCPUs
	MaxDisks  = 16
	MaxNICs   = 16
	MinMemory = 16 << 20
	bodyLimit = 1 << 20
)

// Capabilities lists what the node can do and names what it cannot.
func (s *Service) Capabilities(ctx context.Context) (spec.Capabilities, error) {
	boot := s.Boot()
	c := spec.Capabilities{
		APIVersion:           "v1",
		ConfigSchemaVersions: []string{"1.0"},
		Limits: spec.Limits{
			VcpusPerVM: MaxVCPUs, DisksPerVM: MaxDisks, NicsPerVM: MaxNICs,
			MemoryMinBytes: MinMemory, JSONBodyBytes: bodyLimit,
		},
		MachineTypes: config.MachineTypes(), CPUFlags: []string{},
	}
	add := func(name string, err error) {
		f := spec.Feature{Name: name, Available: err == nil}
		if err != nil {
			f.Problem = *initapi.NewProblem(err)
		}
		c.Features = append(c.Features, f)
	}
	var noKVM, iommu, card error
	if p := boot.KVM.Problem; !boot.KVM.Available {
		noKVM = qverr.New(qverr.NoVMX, "KVM is not available")
		if p != nil {
			noKVM = qverr.New(qverr.Code(p.Code), "%s", p.Message)
		}
	}
	if !boot.IOMMU.Available {
		iommu = qverr.New(qverr.NoIOMMU, "the node has no IOMMU groups")
	}
	if s.Cards.Provider(ctx) != string(spec.SystemInfoCryptoProviderQuac100) {
		card = qverr.New(qverr.QUACNotFound, "no card serves; cryptography runs in software")
	}
	add("kvm", noKVM)
	add("iommu", iommu)
	add("quac100", card)
	add("passthrough", iommu)
	for _, name := range []string{
		"firmware:direct", "firmware:seabios", "disk:raw", "device:virtio-blk", "device:virtio-net", "device:virtio-console", "device:serial",
		"device:virtio-rng", "device:virtio-vsock", "device:virtio-balloon", "memory:hugepages", "memory:balloon", "network:nat", "network:dhcp", "kem:ML-KEM-768", "tls:X25519MLKEM768", "tls:SecP384r1MLKEM1024",
	} {
		add(name, nil)
	}
	for _, name := range []string{
		"firmware:ovmf", "disk:qcow2", "device:nvme", "device:ahci", "device:ide", "graphics", "usb",
		"snapshots", "migration", "memory:hotplug", "security:sev-snp", "security:tdx",
	} {
		add(name, qverr.New(qverr.Unsupported, "%s does not exist in this version", name))
	}
	s.addCPU(&c, noKVM, add)
	return c, nil
}

// addCPU adds the flags that guests can have, and which CPU models.
func (s *Service) addCPU(c *spec.Capabilities, problem error, add func(string, error)) {
	var leaves []kvm.CPUIDEntry
	if problem == nil && s.CPU != nil {
		if leaves, problem = s.CPU(); problem == nil {
			c.CPUFlags = cpumodel.Flags(leaves)
		}
	}
	for _, name := range cpumodel.Names() {
		err := problem
		if err == nil {
			err = cpumodel.Available(leaves, name)
		}
		add("cpu:"+name, err)
	}
}
