package nat

import (
	"testing"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"

	"quantavirt/netstack/nstest"
)

// Our own form is that of nft, whose output the golden files are.
func TestShow(t *testing.T) {
	nstest.Golden(t, "two-networks.nft", show(ruleset(twoNetworks())))
	cfg := twoNetworks()
	cfg.Uplink = ""
	nstest.Golden(t, "no-uplink.nft", show(ruleset(cfg)))
	if got := show(nil); got != "" {
		t.Errorf("no table: %q", got)
	}
}

func TestShowOfTheKernel(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	if got, err := Show(); err != nil || got != "" {
		t.Errorf("before: %q, %v", got, err)
	}
	apply(t, twoNetworks(), true)
	got, err := Show()
	if err != nil {
		t.Fatal(err)
	}
	nstest.Golden(t, "two-networks.nft", got)
}

// Rules of others do not stop it.
func TestShowUnknown(t *testing.T) {
	got := show([]chain{{nftables.Chain{Name: "x", Hooknum: nftables.ChainHookPrerouting, Priority: nftables.ChainPriorityRef(7), Type: "nat"}, [][]expr.Any{
		{&expr.Counter{}, &expr.Verdict{Kind: expr.VerdictGoto, Chain: "y"}},
		{&expr.Cmp{Data: []byte{1}}},
		rule(meta(expr.MetaKeyMARK, []byte{1, 2}), ipv4(), verdict(expr.VerdictAccept)),
		{&expr.Payload{Base: expr.PayloadBaseLLHeader, Offset: 1, Len: 2}, &expr.Cmp{Data: []byte{0, 1}}},
		{&expr.Ct{}, &expr.Cmp{}},
	}}})
	want := `table inet quantavirt {
	chain x {
		type nat hook 0 priority 7; policy accept;
		*expr.Counter verdict -4 y
		<nil> 01
		meta 3 0102 meta nfproto ipv4 accept
		@0,1,2 0001
		ct state 
	}
}
`
	if got != want {
		t.Errorf("%s\nwant\n%s", got, want)
	}
}
