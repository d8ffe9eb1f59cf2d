package main

import (
	"flag"
	"fmt"
	"strconv"
	"strings"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

// placing are the flags of hv run about CPUs, and about where memory comes from.
type placing struct {
	model, features, topology, pin string
	huge                           string
	node                           int
}

func (p *placing) define(fs *flag.FlagSet) {
	fs.StringVar(&p.model, "cpu", "", "CPU `MODEL`: host, x86-64-v2, EPYC, … (docs/vm-cpu.md)")
	fs.StringVar(&p.features, "cpu-features", "", "CPU flags, as in `+aes,-avx`")
	fs.StringVar(&p.topology, "topology", "", "`SOCKETSxCORESxTHREADS` of the vCPUs")
	fs.StringVar(&p.pin, "pin", "", "CPUs of each vCPU, as in `0,1,2+3`")
	fs.StringVar(&p.huge, "hugepages", "", "guest RAM in huge pages of 2M or 1G")
	fs.IntVar(&p.node, "numa-node", -1, "guest RAM of one NUMA node")
}

// apply puts them into m.
func (p *placing) apply(m *config.Machine) error {
	m.CPU.Model, m.MemoryFrom.HugePage = p.model, p.huge
	if p.node >= 0 {
		m.MemoryFrom.Node = &p.node
	}
	if p.features != "" {
		m.CPU.Features = strings.Split(p.features, ",")
	}
	t := &m.CPU.Topology
	if p.topology != "" {
		if n, err := fmt.Sscanf(p.topology, "%dx%dx%d", &t.Sockets, &t.Cores, &t.Threads); err != nil || n != 3 {
			return qverr.New(qverr.Inval, "topology %q: SOCKETSxCORESxTHREADS is needed", p.topology)
		}
	}
	if p.pin == "" {
		return nil
	}
	for set := range strings.SplitSeq(p.pin, ",") {
		var cpus []int
		for cpu := range strings.SplitSeq(set, "+") {
			n, err := strconv.Atoi(cpu)
			if err != nil {
				return qverr.New(qverr.Inval, "pinning %q: CPU %q", p.pin, cpu)
			}
			cpus = append(cpus, n)
		}
		m.CPU.Pinning = append(m.CPU.Pinning, cpus)
	}
	return nil
}
