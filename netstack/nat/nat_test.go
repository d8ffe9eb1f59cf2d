package nat

import (
	"net/netip"
	"testing"

	"quantavirt/netstack/nstest"
)

func twoNetworks() Config {
	return Config{Uplink: "up0", Networks: []Network{
		{Bridge: "qvbr0", Subnet: netip.MustParsePrefix("192.168.200.1/24"), DHCP: true, NAT: true},
		{Bridge: "qvb0a1b2c3d", Subnet: netip.MustParsePrefix("10.77.4.1/22"), TFTP: true},
	}}
}

// apply calls Apply and checks whether it reports a change.
func apply(t *testing.T, cfg Config, wantChange bool) {
	t.Helper()
	changed, err := Apply(cfg)
	if err != nil {
		t.Fatal(err)
	}
	if changed != wantChange {
		t.Fatalf("changed = %v, want %v\n%s", changed, wantChange, list(t))
	}
}

func list(t *testing.T) string { return nstest.Run(t, "nft", "list", "table", "inet", TableName) }

func TestTable(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	nstest.Need(t, "nft")
	apply(t, twoNetworks(), true)
	nstest.Golden(t, "two-networks.nft", list(t))

	handles := nstest.Run(t, "nft", "-a", "list", "table", "inet", TableName)
	apply(t, twoNetworks(), false)
	if again := nstest.Run(t, "nft", "-a", "list", "table", "inet", TableName); again != handles {
		t.Errorf("the second Apply made new rules:\n%s\nwas:\n%s", again, handles)
	}
	if got := nstest.Run(t, "cat", "/proc/sys/net/ipv4/ip_forward"); got != "1\n" {
		t.Errorf("ip_forward = %q", got)
	}

	// Without an uplink nothing is translated; guests stay shut in.
	cfg := twoNetworks()
	cfg.Uplink = ""
	apply(t, cfg, true)
	nstest.Golden(t, "no-uplink.nft", list(t))
	apply(t, cfg, false)
}

func TestRepair(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	nstest.Need(t, "nft")
	cfg := twoNetworks()
	apply(t, cfg, true)
	want := list(t)
	for _, damage := range [][]string{
		{"nft", "flush", "table", "inet", TableName},
		{"nft", "delete", "table", "inet", TableName},
		{"nft", "flush", "chain", "inet", TableName, chainGuests},
		{"nft", "insert", "rule", "inet", TableName, chainGuests, "tcp", "dport", "9400", "accept"},
		{"nft", "add", "chain", "inet", TableName, "foreign"},
		{"nft", "chain", "inet", TableName, chainForward, "{ policy accept; }"},
		{"sh", "-c", "echo 0 > /proc/sys/net/ipv4/ip_forward"},
	} {
		nstest.Run(t, damage...)
		apply(t, cfg, true)
		if got := list(t); got != want {
			t.Errorf("after %v:\n%s\nwant:\n%s", damage, got, want)
		}
		apply(t, cfg, false)
	}
}

func TestRemove(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	nstest.Need(t, "nft")
	nstest.Run(t, "nft", "add", "table", "inet", "foreign")
	apply(t, twoNetworks(), true)
	for range 2 { // the second time there is nothing to remove
		if err := Remove(); err != nil {
			t.Fatal(err)
		}
		if got, want := nstest.Run(t, "nft", "list", "tables"), "table inet foreign\n"; got != want {
			t.Errorf("tables left: %q, want %q", got, want)
		}
	}
}
