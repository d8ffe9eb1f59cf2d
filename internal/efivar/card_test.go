package efivar

import (
	"bytes"
	"testing"
)

// Nodes of a device path, as OVMF writes them.
var (
	pciNode = []byte{1, 1, 6, 0, 0, 2}
	macNode = append(append([]byte{3, 11, 37, 0, 0x52, 0x54, 0, 0x71, 0x76, 1}, make([]byte, 26)...), 1)
	ipNode  = append([]byte{3, 12, 27, 0}, make([]byte, 23)...)
	endNode = []byte{0x7f, 0xff, 4, 0}
)

func pathOf(nodes ...[]byte) LoadOption { return LoadOption{Path: bytes.Join(nodes, nil)} }

func TestCard(t *testing.T) {
	whole := pathOf(pciNode, macNode, ipNode, endNode)
	if got, ok := whole.Card(); !ok || got.String() != "52:54:00:71:76:01" {
		t.Errorf("%s %v", got, ok)
	}
	for n := range len(pciNode) + len(macNode) {
		if got, ok := (LoadOption{Path: whole.Path[:n]}).Card(); ok {
			t.Errorf("cut to %d bytes: %s", n, got)
		}
	}
	for name, o := range map[string]LoadOption{
		"a disk":              option(esp),
		"nothing":             {},
		"a node of no length": pathOf([]byte{3, 11, 0, 0}, macNode),
		"another network":     pathOf(append(macNode[:36:36], 32), endNode), // InfiniBand
		"behind the end":      pathOf(endNode, macNode),
	} {
		if got, ok := o.Card(); ok {
			t.Errorf("%s: %s", name, got)
		}
	}
}

func FuzzCard(f *testing.F) {
	f.Add(pathOf(pciNode, macNode, ipNode, endNode).Path)
	f.Fuzz(func(t *testing.T, path []byte) {
		if got, ok := (LoadOption{Path: path}).Card(); ok && len(got) != 6 {
			t.Errorf("%s", got)
		}
	})
}
