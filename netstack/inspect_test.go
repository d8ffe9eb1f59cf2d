package netstack

import (
	"slices"
	"testing"

	"quantavirt/netstack/nstest"
)

func TestInspect(t *testing.T) {
	if !nstest.Enter(t) {
		return
	}
	nstest.Need(t, "ip")
	for _, args := range [][]string{
		{"link", "add", "br7", "type", "bridge"},
		{"addr", "add", "192.0.2.1/24", "dev", "br7"},
		{"link", "set", "br7", "up"},
		{"route", "add", "default", "via", "192.0.2.9"},
		{"neigh", "add", "192.0.2.9", "lladdr", "02:00:00:00:00:09", "dev", "br7"},
	} {
		nstest.Run(t, append([]string{"ip"}, args...)...)
	}
	k, err := Inspect()
	if err != nil {
		t.Fatal(err)
	}
	i := slices.IndexFunc(k.Links, func(l Link) bool { return l.Name == "br7" })
	if i < 0 {
		t.Fatalf("%+v", k)
	}
	l := k.Links[i]
	has := func(a LinkAddress) bool { return a == LinkAddress{Address: "192.0.2.1/24"} }
	if l.Kind != "bridge" || l.MTU != 1500 || l.Counters == nil || !slices.ContainsFunc(l.Addresses, has) {
		t.Errorf("%+v", l)
	}
	if !slices.ContainsFunc(k.Routes, func(r Route) bool {
		return r.Destination == "default" && r.Gateway == "192.0.2.9" && r.Link == l.Index && r.Table == 254 && r.Protocol == "boot"
	}) {
		t.Errorf("%+v", k.Routes)
	}
	if !slices.ContainsFunc(k.Neighbours, func(n Neighbor) bool { return n.Address == "192.0.2.9" && n.MAC == "02:00:00:00:00:09" }) {
		t.Errorf("%+v", k.Neighbours)
	}
}
