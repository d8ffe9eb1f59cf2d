package vm

import (
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// Where the kernel shows NUMA nodes, and its pools of huge pages.
const (
	sysNodes = "/sys/devices/system/node"
	sysHuge  = "/sys/kernel/mm/hugepages"
)

// checkNode refuses a VM whose memory is to be of a NUMA node that is not there or has
// too little left.
func checkNode(nodes string, c *spec.VMConfig) error {
	if c.Memory.NumaNode == nil {
		return nil
	}
	node := *c.Memory.NumaNode
	left, err := nodeMemory(nodes, node)
	if errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.NUMA, "memory.numa_node: the node has no NUMA node %d", node).With("path", "memory.numa_node")
	}
	if err != nil {
		return qverr.New(qverr.NUMA, "memory of NUMA node %d: %w", node, err)
	}
	if need := int64(c.Memory.Size); need > left {
		return qverr.New(qverr.NUMA, "memory.numa_node: VM %s needs %d MiB of NUMA node %d, which has %d MiB left",
			c.Name, need>>20, node, left>>20).With("path", "memory.numa_node").With("needed_bytes", need).With("left_bytes", left)
	}
	return nil
}

// nodeMemory is what a NUMA node can give, in bytes: what is free, and the page cache.
func nodeMemory(nodes string, node int) (int64, error) {
	data, err := os.ReadFile(filepath.Join(nodes, fmt.Sprintf("node%d", node), "meminfo"))
	if err != nil {
		return 0, err
	}
	sum := int64(0)
	for line := range strings.Lines(string(data)) {
		f := strings.Fields(line) // Node 0 MemFree: 1234 kB
		if len(f) < 4 {
			continue
		}
		switch f[2] {
		case "MemFree:", "Active(file):", "Inactive(file):":
			n, err := strconv.ParseInt(f[3], 10, 64)
			if err != nil {
				return 0, err
			}
			sum += n << 10
		}
	}
	return sum, nil
}

// AllowHugePages lets the kernel make huge pages of 2 MiB for VMs from free memory, and
// take them back, so that nobody need set pages aside. Pages of 1 GiB can only be set
// aside, by the kernel's command line. A kernel without huge pages is no error.
func AllowHugePages() error {
	path := filepath.Join(sysHuge, "hugepages-2048kB", "nr_overcommit_hugepages")
	const all = maxMemory / (2 << 20)
	if err := os.WriteFile(path, []byte(strconv.Itoa(all)), 0); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return qverr.New(qverr.Hugepage, "let the kernel make huge pages: %w", err)
	}
	return nil
}
