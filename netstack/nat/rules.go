package nat

import (
	"net/netip"

	"github.com/google/nftables"
	"github.com/google/nftables/binaryutil"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"
)

// Names of the chains.
const (
	chainInput       = "input"
	chainGuests      = "guests"
	chainForward     = "forward"
	chainPostrouting = "postrouting"
)

// chain is a chain with its rules in order.
type chain struct {
	nftables.Chain
	rules [][]expr.Any
}

// ruleset is the whole table as cfg wants it.
func ruleset(cfg Config) []chain {
	accept, drop := nftables.ChainPolicyAccept, nftables.ChainPolicyDrop
	return []chain{
		{base(chainInput, nftables.ChainTypeFilter, nftables.ChainHookInput, nftables.ChainPriorityFilter, accept),
			[][]expr.Any{rule(iifPrefix(BridgePrefix), jump(chainGuests))}},
		{nftables.Chain{Name: chainGuests}, guestRules(cfg)},
		{base(chainForward, nftables.ChainTypeFilter, nftables.ChainHookForward, nftables.ChainPriorityFilter, drop),
			forwardRules(cfg)},
		{base(chainPostrouting, nftables.ChainTypeNAT, nftables.ChainHookPostrouting, nftables.ChainPriorityNATSource, accept),
			natRules(cfg)},
	}
}

// guestRules say what a guest may send to the node.
func guestRules(cfg Config) [][]expr.Any {
	rules := [][]expr.Any{rule(established(), verdict(expr.VerdictAccept))}
	accept := verdict(expr.VerdictAccept)
	for _, n := range cfg.Networks {
		from, gw := iif(n.Bridge), n.Subnet.Addr()
		if n.DHCP {
			rules = append(rules, rule(from, ipv4(), l4(unix.IPPROTO_UDP), ports(68, 67), accept))
		}
		if n.TFTP { // its answers come from another port, and belong to the request
			rules = append(rules, rule(from, ipv4(), daddr(gw), l4(unix.IPPROTO_UDP), dport(69), accept))
		}
		rules = append(rules,
			rule(from, ipv4(), daddr(gw), l4(unix.IPPROTO_UDP), dport(53), accept),
			rule(from, ipv4(), daddr(gw), l4(unix.IPPROTO_TCP), dport(53), accept),
			rule(from, ipv4(), daddr(gw), l4(unix.IPPROTO_ICMP), icmpType(8), accept),
		)
	}
	return append(rules, rule(verdict(expr.VerdictDrop)))
}

func forwardRules(cfg Config) [][]expr.Any {
	accept := verdict(expr.VerdictAccept)
	var rules [][]expr.Any
	// Bridged frames come here only where br_netfilter is loaded.
	for _, n := range cfg.Networks {
		rules = append(rules, rule(iif(n.Bridge), oif(n.Bridge), accept))
	}
	rules = append(rules,
		rule(established(), accept),
		// What conntrack cannot place is not translated and would leak.
		rule(ctState(expr.CtStateBitINVALID), verdict(expr.VerdictDrop)),
	)
	for _, n := range natNetworks(cfg) {
		rules = append(rules, rule(iif(n.Bridge), oif(cfg.Uplink), ipv4(), saddr(n.Subnet), accept))
	}
	return rules
}

func natRules(cfg Config) [][]expr.Any {
	var rules [][]expr.Any
	for _, n := range natNetworks(cfg) {
		rules = append(rules, rule(oif(cfg.Uplink), ipv4(), saddr(n.Subnet), []expr.Any{&expr.Masq{}}))
	}
	return rules
}

func natNetworks(cfg Config) []Network {
	var out []Network
	for _, n := range cfg.Networks {
		if n.NAT && cfg.Uplink != "" {
			out = append(out, n)
		}
	}
	return out
}

func base(name string, typ nftables.ChainType, hook *nftables.ChainHook, prio *nftables.ChainPriority,
	policy nftables.ChainPolicy) nftables.Chain {
	return nftables.Chain{Name: name, Type: typ, Hooknum: hook, Priority: prio, Policy: &policy}
}

func rule(parts ...[]expr.Any) []expr.Any {
	var out []expr.Any
	for _, p := range parts {
		out = append(out, p...)
	}
	return out
}

func verdict(k expr.VerdictKind) []expr.Any { return []expr.Any{&expr.Verdict{Kind: k}} }

func jump(chain string) []expr.Any {
	return []expr.Any{&expr.Verdict{Kind: expr.VerdictJump, Chain: chain}}
}

func meta(key expr.MetaKey, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Meta{Key: key, Register: 1},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// ifname pads an interface name as the kernel keeps it.
func ifname(name string) []byte {
	b := make([]byte, unix.IFNAMSIZ)
	copy(b[:unix.IFNAMSIZ-1], name)
	return b
}

func iif(name string) []expr.Any    { return meta(expr.MetaKeyIIFNAME, ifname(name)) }
func oif(name string) []expr.Any    { return meta(expr.MetaKeyOIFNAME, ifname(name)) }
func iifPrefix(p string) []expr.Any { return meta(expr.MetaKeyIIFNAME, []byte(p)) }
func ipv4() []expr.Any              { return meta(expr.MetaKeyNFPROTO, []byte{unix.NFPROTO_IPV4}) }
func l4(proto byte) []expr.Any      { return meta(expr.MetaKeyL4PROTO, []byte{proto}) }
func established() []expr.Any       { return ctState(expr.CtStateBitESTABLISHED | expr.CtStateBitRELATED) }
func daddr(a netip.Addr) []expr.Any { return match(expr.PayloadBaseNetworkHeader, 16, a.AsSlice()) }
func icmpType(t byte) []expr.Any    { return match(expr.PayloadBaseTransportHeader, 0, []byte{t}) }
func dport(p uint16) []expr.Any {
	return match(expr.PayloadBaseTransportHeader, 2, binaryutil.BigEndian.PutUint16(p))
}

// ports matches source and destination port of TCP or UDP.
func ports(src, dst uint16) []expr.Any {
	return match(expr.PayloadBaseTransportHeader, 0,
		append(binaryutil.BigEndian.PutUint16(src), binaryutil.BigEndian.PutUint16(dst)...))
}

func match(b expr.PayloadBase, offset uint32, data []byte) []expr.Any {
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: b, Offset: offset, Len: uint32(len(data))},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: data},
	}
}

// saddr matches a source address within the subnet of p.
func saddr(p netip.Prefix) []expr.Any {
	const offset = 12
	return []expr.Any{
		&expr.Payload{DestRegister: 1, Base: expr.PayloadBaseNetworkHeader, Offset: offset, Len: 4},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4, Mask: mask(p.Bits()), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpEq, Register: 1, Data: p.Masked().Addr().AsSlice()},
	}
}

func mask(bits int) []byte {
	return binaryutil.BigEndian.PutUint32(^uint32(0) << (32 - bits))
}

func ctState(bits uint32) []expr.Any {
	return []expr.Any{
		&expr.Ct{Register: 1, Key: expr.CtKeySTATE},
		&expr.Bitwise{SourceRegister: 1, DestRegister: 1, Len: 4,
			Mask: binaryutil.NativeEndian.PutUint32(bits), Xor: make([]byte, 4)},
		&expr.Cmp{Op: expr.CmpOpNeq, Register: 1, Data: make([]byte, 4)},
	}
}
