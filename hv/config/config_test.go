package config_test

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

func machine() config.Machine {
	return config.Machine{Name: "web", CPUs: 2, Memory: 64 << 20, Boot: config.Boot{Kernel: "k", Initrd: "i", Cmdline: "quiet"},
		Disks: []config.Disk{{ID: "a", File: "fa", Format: "raw"}, {ID: "b", File: "fb", Format: "raw", Cache: "none", Queues: 64, Serial: "12345678901234567890"}},
		NICs:  []config.NIC{{ID: "n", TAP: "t", Vhost: "v", MAC: "02:00:00:00:00:01", MTU: 1400}},
		Vsock: &config.Vsock{CID: 3, Vhost: "vs"}, VFIO: "vf", PCI: []config.PCI{{Address: "0000:01:00.0", Device: "p0"}, {Address: "0000:01:00.1", Device: "p1"}}, ConsoleLog: "cl", SerialLog: "sl"}
}

func TestValidate(t *testing.T) {
	m := machine()
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	if got, want := m.Files(), []string{"k", "i", "cl", "sl", "fa", "fb", "t", "v", "vs", "vf", "p0", "p1"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
	for _, tc := range []struct {
		name   string
		change func(*config.Machine)
		code   qverr.Code
		path   string
	}{
		{"no name", func(m *config.Machine) { m.Name = "" }, qverr.Config, "name"},
		{"path as name", func(m *config.Machine) { m.Name = "a/b" }, qverr.Config, "name"},
		{"no CPU", func(m *config.Machine) { m.CPUs = 0 }, qverr.Config, "cpus"},
		{"257 CPUs", func(m *config.Machine) { m.CPUs = 257 }, qverr.Config, "cpus"},
		{"machine type", func(m *config.Machine) { m.Type = "qv-9" }, qverr.Unsupported, "type"},
		{"generation", func(m *config.Machine) { m.Generation = "1b4e28ba" }, qverr.Config, "generation"},
		{"long generation", func(m *config.Machine) { m.Generation = "1b4e28ba-2fa1-41d2-883f-0016d3cca42700" }, qverr.Config, "generation"},
		{"topology", func(m *config.Machine) { m.CPU.Topology = config.Topology{Sockets: 2, Cores: 2, Threads: 1} }, qverr.Topology, "cpu.topology"},
		{"three threads", func(m *config.Machine) { m.CPUs, m.CPU.Topology = 3, config.Topology{Sockets: 1, Cores: 1, Threads: 3} }, qverr.Topology, "cpu.topology"},
		{"CPU model", func(m *config.Machine) { m.CPU.Model = "8086" }, qverr.Config, "cpu.model"},
		{"CPU flag", func(m *config.Machine) { m.CPU.Features = []string{"+warp"} }, qverr.Config, "cpu.features"},
		{"too many pins", func(m *config.Machine) { m.CPU.Pinning = [][]int{{0}, {0}, {0}} }, qverr.Config, "cpu.pinning"},
		{"negative CPU", func(m *config.Machine) { m.CPU.Pinning = [][]int{{0}, {-1}} }, qverr.Config, "cpu.pinning"},
		{"huge pages", func(m *config.Machine) { m.MemoryFrom.HugePage = "4M" }, qverr.Config, "memory_from.huge_page"},
		{"part of a huge page", func(m *config.Machine) { m.MemoryFrom.HugePage, m.Memory = "1G", 1<<30+4096 }, qverr.Config, "memory_bytes"},
		{"negative node", func(m *config.Machine) { m.MemoryFrom.Node = new(-1) }, qverr.Config, "memory_from.node"},
		{"negative memory", func(m *config.Machine) { m.Memory = -4096 }, qverr.Config, "memory_bytes"},
		{"little memory", func(m *config.Machine) { m.Memory = 16<<20 - 4096 }, qverr.Config, "memory_bytes"},
		{"odd memory", func(m *config.Machine) { m.Memory++ }, qverr.Config, "memory_bytes"},
		{"no kernel", func(m *config.Machine) { m.Boot.Kernel = "" }, qverr.Config, "boot.kernel"},
		{"long command line", func(m *config.Machine) { m.Boot.Cmdline = strings.Repeat("x", 2048) }, qverr.Config, "boot.cmdline"},
		{"zero in command line", func(m *config.Machine) { m.Boot.Cmdline = "a\x00b" }, qverr.Config, "boot.cmdline"},
		{"17 disks", func(m *config.Machine) { m.Disks = make([]config.Disk, 17) }, qverr.Config, "disks"},
		{"same disk id", func(m *config.Machine) { m.Disks[1].ID = "a" }, qverr.Config, "disks.id"},
		{"no disk file", func(m *config.Machine) { m.Disks[1].File = "" }, qverr.Config, "disks.file"},
		{"qcow2", func(m *config.Machine) { m.Disks[1].Format = "qcow2" }, qverr.Unsupported, "disks.format"},
		{"long serial", func(m *config.Machine) { m.Disks[1].Serial += "1" }, qverr.Config, "disks.serial"},
		{"65 queues", func(m *config.Machine) { m.Disks[1].Queues = 65 }, qverr.Config, "disks.queues"},
		{"unknown cache", func(m *config.Machine) { m.Disks[1].Cache = "lazy" }, qverr.Config, "disks.cache"},
		{"17 NICs", func(m *config.Machine) { m.NICs = make([]config.NIC, 17) }, qverr.Config, "nics"},
		{"too many devices", func(m *config.Machine) { m.Disks, m.NICs = many() }, qverr.Limit, "disks"},
		{"small target", func(m *config.Machine) { m.PCI, m.VFIO, m.Balloon = nil, "", &config.Balloon{Target: 8 << 20} }, qverr.Config, "balloon.target_bytes"},
		{"large target", func(m *config.Machine) { m.PCI, m.VFIO, m.Balloon = nil, "", &config.Balloon{Target: 65 << 20} }, qverr.Config, "balloon.target_bytes"},
		{"balloon and passthrough", func(m *config.Machine) {
			m.Balloon, m.VFIO, m.PCI = &config.Balloon{}, "vfio", []config.PCI{{Address: "0000:01:00.0"}}
		}, qverr.Config, "balloon"},
		{"balloon and huge pages", func(m *config.Machine) { m.Balloon, m.MemoryFrom.HugePage = &config.Balloon{}, "2M" }, qverr.Config, "balloon"},
		{"odd target", func(m *config.Machine) { m.PCI, m.VFIO, m.Balloon = nil, "", &config.Balloon{Target: 32<<20 + 1} }, qverr.Config, "balloon.target_bytes"},
		{"no slot for a balloon", func(m *config.Machine) {
			m.Disks, m.NICs = many()
			m.NICs, m.PCI, m.Balloon = m.NICs[:12], nil, &config.Balloon{}
		}, qverr.Limit, "disks"},
		{"no NIC id", func(m *config.Machine) { m.NICs[0].ID = "" }, qverr.Config, "nics.id"},
		{"no TAP", func(m *config.Machine) { m.NICs[0].TAP = "" }, qverr.Config, "nics.tap"},
		{"limits of vhost-net", func(m *config.Machine) { m.NICs[0].Limits.Bytes.PerSecond = 1 }, qverr.Config, "nics.limits"},
		{"limits too large", func(m *config.Machine) { m.NICs[0].Vhost, m.NICs[0].Limits.Bytes.PerSecond = "", 1<<63 }, qverr.Config, "nics.limits"},
		{"limit of entropy", func(m *config.Machine) { m.RNGLimit.Burst = 1 }, qverr.Config, "rng_limit"},
		{"nine ports", func(m *config.Machine) { m.Ports = strings.Split("a b c d e f g h i", " ") }, qverr.Config, "console_ports"},
		{"path as port", func(m *config.Machine) { m.Ports = []string{"a/b"} }, qverr.Config, "console_ports"},
		{"same port", func(m *config.Machine) { m.Ports = []string{"a", "a"} }, qverr.Config, "console_ports"},
		{"console as port", func(m *config.Machine) { m.Ports = []string{"serial"} }, qverr.Config, "console_ports"},
		{"long port", func(m *config.Machine) { m.Ports = []string{strings.Repeat("x", 65)} }, qverr.Config, "console_ports"},
		{"17 pairs", func(m *config.Machine) { m.NICs[0].Queues = 17 }, qverr.Config, "nics.queues"},
		{"minus one pair", func(m *config.Machine) { m.NICs[0].Queues = -1 }, qverr.Config, "nics.queues"},
		{"no MAC", func(m *config.Machine) { m.NICs[0].MAC = "" }, qverr.NetMAC, "nics.mac"},
		{"multicast MAC", func(m *config.Machine) { m.NICs[0].MAC = "03:00:00:00:00:01" }, qverr.NetMAC, "nics.mac"},
		{"long MAC", func(m *config.Machine) { m.NICs[0].MAC = "02:00:00:00:00:00:00:01" }, qverr.NetMAC, "nics.mac"},
		{"small MTU", func(m *config.Machine) { m.NICs[0].MTU = 67 }, qverr.NetMTU, "nics.mtu"},
		{"host's CID", func(m *config.Machine) { m.Vsock.CID = 2 }, qverr.Config, "vsock.cid"},
		{"any CID", func(m *config.Machine) { m.Vsock.CID = 0xffffffff }, qverr.Config, "vsock.cid"},
		{"two ways of vsock", func(m *config.Machine) { m.Vsock.Sockets = "s" }, qverr.Config, "vsock.vhost"},
		{"17 functions", func(m *config.Machine) { m.PCI = make([]config.PCI, 17) }, qverr.Config, "pci"},
		{"no PCI address", func(m *config.Machine) { m.PCI[0].Address = "01:00.0" }, qverr.Config, "pci.address"},
		{"a function twice", func(m *config.Machine) { m.PCI[1].Address = m.PCI[0].Address }, qverr.Config, "pci.address"},
		{"no device", func(m *config.Machine) { m.PCI[1].Device = "" }, qverr.Config, "pci.device"},
		{"functions and a balloon", func(m *config.Machine) { m.Balloon = &config.Balloon{} }, qverr.Config, "balloon"},
		{"no container", func(m *config.Machine) { m.VFIO = "" }, qverr.Config, "vfio"},
		{"no vsock", func(m *config.Machine) { m.Vsock.Vhost = "" }, qverr.Config, "vsock.vhost"},
	} {
		m := machine()
		tc.change(&m)
		err := m.Validate()
		if !errors.Is(err, tc.code) || qverr.From(err).Details["path"] != tc.path {
			t.Errorf("%s: %v (%v)", tc.name, err, qverr.From(err))
		}
	}
}

func TestQueueFiles(t *testing.T) {
	m := machine()
	m.NICs[0].Queues = 3
	if got, want := m.Files()[6:12], []string{"t", "t/1", "t/2", "v", "v/1", "v/2"}; !slices.Equal(got, want) {
		t.Errorf("%v, want %v", got, want)
	}
}

func many() ([]config.Disk, []config.NIC) {
	var disks []config.Disk
	var nics []config.NIC
	for i := range 16 {
		id := string(rune('a' + i))
		disks = append(disks, config.Disk{ID: id, File: id, Format: "raw"})
		nics = append(nics, config.NIC{ID: id, TAP: id, MAC: "02:00:00:00:00:01"})
	}
	return disks, nics
}
