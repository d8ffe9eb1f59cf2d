package support

import (
	"context"

	"quantavirt/netstack"
	"quantavirt/netstack/nat"
)

// Network is the part with the network: what the kernel has, the packet rules, and what
// else the caller knows.
func Network(more ...Item) Part {
	kernel := JSON("kernel", func(context.Context) (netstack.Kernel, error) { return netstack.Inspect() })
	rules := Item{Name: "rules", Collect: func(_ context.Context, add func(File) error) error {
		text, err := nat.Show()
		if err != nil {
			return err
		}
		return add(File{Name: "rules.nft", Text: []byte(text)})
	}}
	return Part{Name: PartNetwork, Items: Items(append([]Item{kernel, rules}, more...)...)}
}
