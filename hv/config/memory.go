package config

// Sizes of huge pages as the configuration has them, in bytes.
var hugePages = map[string]int64{"2M": 2 << 20, "1G": 1 << 30}

// MemoryFrom is where guest RAM comes from on the host. Its zero value is ordinary
// pages of any node.
type MemoryFrom struct {
	HugePage string `json:"huge_page,omitempty"` // 2M or 1G, "" for ordinary pages
	Node     *int   `json:"node,omitempty"`      // NUMA node of the host, nil for any
}

// PageBytes is the size of a huge page, 0 for ordinary pages.
func (f MemoryFrom) PageBytes() int64 { return hugePages[f.HugePage] }

// maxNode bounds the number of a NUMA node: MAX_NUMNODES of Debian's kernel.
const maxNode = 1023

func (m *Machine) validateMemory() error {
	if m.Memory < MinMemory || m.Memory > MaxMemory || m.Memory%4096 != 0 {
		return bad("memory_bytes", "%d bytes of memory: a multiple of 4096 from 16 MiB to 4 TiB is needed", m.Memory)
	}
	from := m.MemoryFrom
	page := from.PageBytes()
	if from.HugePage != "" && page == 0 {
		return bad("memory_from.huge_page", "huge pages of %q: 2M and 1G exist", from.HugePage)
	}
	if page != 0 && m.Memory%page != 0 {
		return bad("memory_bytes", "%d bytes of memory are not whole pages of %s", m.Memory, from.HugePage)
	}
	if from.Node != nil && (*from.Node < 0 || *from.Node > maxNode) {
		return bad("memory_from.node", "NUMA node %d", *from.Node)
	}
	return nil
}
