package nat

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"net/netip"
	"strings"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Show is the table as the kernel has it, in the form of "nft list table"; "" if there is
// none. What is not of our making shows as its type. Errors carry QV_NET_ERR_FIREWALL.
func Show() (string, error) {
	conn, err := nftables.New()
	if err != nil {
		return "", qverr.New(qverr.NetFirewall, "open nftables: %w", err)
	}
	have, err := current(conn)
	if err != nil {
		return "", qverr.New(qverr.NetFirewall, "read table %s: %w", TableName, explain(err))
	}
	return show(have), nil
}

func show(chains []chain) string {
	if chains == nil {
		return ""
	}
	var b strings.Builder
	fmt.Fprintf(&b, "table inet %s {\n", TableName)
	for i, c := range chains {
		if i > 0 {
			b.WriteString("\n")
		}
		fmt.Fprintf(&b, "\tchain %s {\n%s", c.Name, hookText(&c.Chain))
		for _, r := range c.rules {
			fmt.Fprintf(&b, "\t\t%s\n", ruleText(r))
		}
		b.WriteString("\t}\n")
	}
	b.WriteString("}\n")
	return b.String()
}

func hookText(c *nftables.Chain) string {
	if c.Hooknum == nil || c.Priority == nil {
		return ""
	}
	policy := "accept"
	if c.Policy != nil && *c.Policy == nftables.ChainPolicyDrop {
		policy = "drop"
	}
	hook := map[nftables.ChainHook]string{*nftables.ChainHookInput: "input", *nftables.ChainHookForward: "forward",
		*nftables.ChainHookPostrouting: "postrouting"}[*c.Hooknum]
	if hook == "" {
		hook = fmt.Sprint(*c.Hooknum)
	}
	priority := map[nftables.ChainPriority]string{*nftables.ChainPriorityFilter: "filter",
		*nftables.ChainPriorityNATSource: "srcnat"}[*c.Priority]
	if priority == "" {
		priority = fmt.Sprint(*c.Priority)
	}
	return fmt.Sprintf("\t\ttype %s hook %s priority %s; policy %s;\n", c.Type, hook, priority, policy)
}

// printer prints a rule. What has been loaded is printed with what it is compared with.
type printer struct {
	words  []string
	load   expr.Any // Meta, Payload or Ct
	mask   []byte
	proto  byte // of the transport header, once the rule has asked for it
	nfIPv4 bool // the rule has asked for IPv4, which is not printed before an address
}

func ruleText(exprs []expr.Any) string {
	var p printer
	for _, e := range exprs {
		switch e := e.(type) {
		case *expr.Meta, *expr.Payload, *expr.Ct:
			p.load, p.mask = e, nil
		case *expr.Bitwise:
			p.mask = e.Mask
		case *expr.Cmp:
			p.compare(e)
		case *expr.Verdict:
			p.word(verdictText(e))
		case *expr.Masq:
			p.word("masquerade")
		default:
			p.word(fmt.Sprintf("%T", e))
		}
	}
	return strings.Join(p.words, " ")
}

func (p *printer) word(s string) {
	if p.nfIPv4 && !strings.HasPrefix(s, "ip ") {
		p.words = append(p.words, "meta nfproto ipv4")
	}
	p.nfIPv4 = false
	p.words = append(p.words, s)
}

func verdictText(v *expr.Verdict) string {
	switch v.Kind {
	case expr.VerdictAccept:
		return "accept"
	case expr.VerdictDrop:
		return "drop"
	case expr.VerdictJump:
		return "jump " + v.Chain
	}
	return fmt.Sprintf("verdict %d %s", v.Kind, v.Chain)
}

func (p *printer) compare(c *expr.Cmp) {
	switch load := p.load.(type) {
	case *expr.Meta:
		p.meta(load, c.Data)
	case *expr.Payload:
		p.payload(load, c.Data)
	case *expr.Ct:
		p.word("ct state " + stateText(p.mask))
	default:
		p.word(fmt.Sprintf("%T %x", load, c.Data))
	}
}

func (p *printer) meta(m *expr.Meta, data []byte) {
	switch {
	case m.Key == expr.MetaKeyIIFNAME:
		p.word("iifname " + ifText(data))
	case m.Key == expr.MetaKeyOIFNAME:
		p.word("oifname " + ifText(data))
	case m.Key == expr.MetaKeyNFPROTO && bytes.Equal(data, []byte{unix.NFPROTO_IPV4}):
		p.nfIPv4 = true
	case m.Key == expr.MetaKeyL4PROTO && len(data) == 1:
		p.proto = data[0] // the next payload says it
	default:
		p.word(fmt.Sprintf("meta %d %x", m.Key, data))
	}
}

// ifText is a name of an interface, which is padded unless it is the beginning of one.
func ifText(data []byte) string {
	name, rest, padded := bytes.Cut(data, []byte{0})
	if !padded && len(rest) == 0 && len(data) < unix.IFNAMSIZ {
		return fmt.Sprintf("%q", string(name)+"*")
	}
	return fmt.Sprintf("%q", name)
}

func (p *printer) payload(l *expr.Payload, data []byte) {
	addr, isAddr := netip.AddrFromSlice(data)
	port := func(at int) uint16 { return binary.BigEndian.Uint16(data[at:]) }
	name := map[byte]string{unix.IPPROTO_UDP: "udp", unix.IPPROTO_TCP: "tcp"}[p.proto]
	network, transport := l.Base == expr.PayloadBaseNetworkHeader, l.Base == expr.PayloadBaseTransportHeader
	switch {
	case network && l.Offset == 16 && isAddr:
		p.word("ip daddr " + addr.String())
	case network && l.Offset == 12 && isAddr && len(p.mask) == 4:
		p.word("ip saddr " + netip.PrefixFrom(addr, onesOf(p.mask)).String())
	case transport && p.proto == unix.IPPROTO_ICMP && bytes.Equal(data, []byte{8}):
		p.word("icmp type echo-request")
	case transport && name != "" && l.Offset == 2 && len(data) == 2:
		p.word(fmt.Sprintf("%s dport %d", name, port(0)))
	case transport && name != "" && l.Offset == 0 && len(data) == 4:
		p.word(fmt.Sprintf("%s sport %d %s dport %d", name, port(0), name, port(2)))
	default:
		p.word(fmt.Sprintf("@%d,%d,%d %x", l.Base, l.Offset, l.Len, data))
	}
}

func onesOf(mask []byte) int {
	ones := 0
	for _, b := range mask {
		for ; b&0x80 != 0; b <<= 1 {
			ones++
		}
	}
	return ones
}

func stateText(mask []byte) string {
	if len(mask) != 4 {
		return fmt.Sprintf("%x", mask)
	}
	bits := binary.NativeEndian.Uint32(mask)
	var names []string
	for _, s := range []struct {
		bit  uint32
		name string
	}{{expr.CtStateBitINVALID, "invalid"}, {expr.CtStateBitESTABLISHED, "established"}, {expr.CtStateBitRELATED, "related"}, {expr.CtStateBitNEW, "new"}} {
		if bits&s.bit != 0 {
			names = append(names, s.name)
		}
	}
	return strings.Join(names, ",")
}
