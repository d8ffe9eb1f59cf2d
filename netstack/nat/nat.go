package nat

import (
	"errors"
	"fmt"
	"io/fs"
	"reflect"

	"github.com/google/nftables"
	"github.com/google/nftables/expr"
	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/rtnl"
)

func table() *nftables.Table {
	return &nftables.Table{Name: TableName, Family: nftables.TableFamilyINet}
}

// Apply makes the table and IP forwarding what cfg says and reports whether
// anything changed. Errors carry QV_NET_ERR_NAT, or QV_NET_ERR_FIREWALL when
// no network wants translation.
func Apply(cfg Config) (changed bool, err error) {
	code := qverr.NetFirewall
	if len(natNetworks(Config{Uplink: "any", Networks: cfg.Networks})) > 0 {
		code = qverr.NetNAT
	}
	conn, err := nftables.New()
	if err != nil {
		return false, qverr.New(code, "open nftables: %w", err)
	}
	want := ruleset(cfg)
	have, err := current(conn)
	if err != nil {
		return false, qverr.New(code, "read table %s: %w", TableName, explain(err))
	}
	if !same(have, want) {
		if err := replace(conn, have, want); err != nil {
			return false, qverr.New(code, "replace table %s: %w", TableName, explain(err))
		}
		changed = true
	}
	c, err := rtnl.Sysctl("ipv4/ip_forward", "1")
	if err != nil {
		return changed, qverr.New(code, "switch IP forwarding on: %w", err)
	}
	return changed || c, nil
}

// Remove deletes the table; it is no error if there is none. IP forwarding
// stays as it is. Errors carry QV_NET_ERR_FIREWALL.
func Remove() error {
	conn, err := nftables.New()
	if err != nil {
		return qverr.New(qverr.NetFirewall, "open nftables: %w", err)
	}
	have, err := current(conn)
	if err == nil && have == nil {
		return nil
	}
	conn.DelTable(table())
	if err := conn.Flush(); err != nil {
		return qverr.New(qverr.NetFirewall, "remove table %s: %w", TableName, explain(err))
	}
	return nil
}

// current is the table as the kernel has it; nil if there is none.
func current(conn *nftables.Conn) ([]chain, error) {
	tables, err := rtnl.Retry(func() ([]*nftables.Table, error) {
		return conn.ListTablesOfFamily(nftables.TableFamilyINet)
	})
	if err != nil {
		return nil, fmt.Errorf("list tables: %w", err)
	}
	found := false
	for _, t := range tables {
		found = found || t.Name == TableName
	}
	if !found {
		return nil, nil
	}
	all, err := rtnl.Retry(func() ([]*nftables.Chain, error) {
		return conn.ListChainsOfTableFamily(nftables.TableFamilyINet)
	})
	if err != nil {
		return nil, fmt.Errorf("list chains: %w", err)
	}
	out := []chain{} // an empty table is not the same as none
	for _, c := range all {
		if c.Table.Name != TableName {
			continue
		}
		rules, err := rtnl.Retry(func() ([]*nftables.Rule, error) { return conn.GetRules(table(), c) })
		if err != nil {
			return nil, fmt.Errorf("list rules of chain %s: %w", c.Name, err)
		}
		got := chain{Chain: *c}
		for _, r := range rules {
			got.rules = append(got.rules, r.Exprs)
		}
		out = append(out, got)
	}
	return out, nil
}

// same reports whether the kernel has exactly what is wanted.
func same(have, want []chain) bool {
	if !sameChains(have, want) {
		return false
	}
	for _, w := range want {
		h := find(have, w.Name)
		if len(h.rules) != len(w.rules) {
			return false
		}
		for i := range w.rules {
			if !sameRule(h.rules[i], w.rules[i]) {
				return false
			}
		}
	}
	return true
}

func sameRule(have, want []expr.Any) bool {
	return reflect.DeepEqual(have, want)
}

// sameChains compares everything but rules.
func sameChains(have, want []chain) bool {
	if len(have) != len(want) {
		return false
	}
	for _, w := range want {
		h := find(have, w.Name)
		if h == nil || h.Type != w.Type || !equal(h.Hooknum, w.Hooknum) || !equal(h.Priority, w.Priority) ||
			!equal(h.Policy, w.Policy) {
			return false
		}
	}
	return true
}

func equal[T comparable](a, b *T) bool {
	if a == nil || b == nil {
		return a == b
	}
	return *a == *b
}

func find(chains []chain, name string) *chain {
	for i := range chains {
		if chains[i].Name == name {
			return &chains[i]
		}
	}
	return nil
}

// replace puts the wanted rules in place of the others in one transaction.
// Chains that are right stay, because their hooks carry live connections.
func replace(conn *nftables.Conn, have, want []chain) error {
	t := conn.AddTable(table())
	if sameChains(have, want) {
		conn.FlushTable(t)
	} else if have != nil {
		conn.DelTable(t)
		t = conn.AddTable(table())
	}
	// All chains first: a rule may jump to one that comes later.
	made := make([]*nftables.Chain, len(want))
	for i, w := range want {
		c := w.Chain
		c.Table = t
		made[i] = conn.AddChain(&c)
	}
	for i, w := range want {
		for _, exprs := range w.rules {
			conn.AddRule(&nftables.Rule{Table: t, Chain: made[i], Exprs: exprs})
		}
	}
	return conn.Flush()
}

// explain adds what an errno of nftables usually means on a cut-down kernel.
func explain(err error) error {
	if errors.Is(err, unix.EOPNOTSUPP) || errors.Is(err, unix.EPROTONOSUPPORT) || errors.Is(err, fs.ErrNotExist) {
		return fmt.Errorf("%w (modules nf_tables, nft_ct, nft_chain_nat and nft_masq loaded?)", err)
	}
	return err
}
