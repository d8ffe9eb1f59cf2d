package dhcp

import (
	"cmp"
	"net/netip"
	"slices"
	"time"

	"quantavirt/netstack/mac"
)

// pool says which address belongs to whom. Each address has at most one record
// and each MAC too, so flooding with MACs cannot make it larger than the subnet.
type pool struct {
	cfg      Config
	byMAC    map[mac.Addr]*record
	byAddr   map[netip.Addr]*record
	declined map[netip.Addr]time.Time // until when
}

// record is a lease, or an offer that waits to become one.
type record struct {
	Lease
	offered bool // not acknowledged and not stored
}

func newPool(cfg Config) *pool {
	return &pool{cfg: cfg, byMAC: make(map[mac.Addr]*record), byAddr: make(map[netip.Addr]*record),
		declined: make(map[netip.Addr]time.Time)}
}

// load takes stored leases over and returns those that no longer fit: outside
// of the subnet, or, of two for one address or one MAC, the older.
func (p *pool) load(leases []Lease) (stale []Lease) {
	leases = slices.Clone(leases)
	slices.SortFunc(leases, func(a, b Lease) int { return b.Expires.Compare(a.Expires) })
	for _, l := range leases {
		if !p.cfg.usable(l.Address) || l.MAC.Check() != nil || p.byMAC[l.MAC] != nil || p.byAddr[l.Address] != nil {
			stale = append(stale, l)
			continue
		}
		if !validHostname(l.Hostname) {
			l.Hostname = ""
		}
		p.put(&record{Lease: l})
	}
	return stale
}

// put inserts a record in place of those of its MAC and its address.
func (p *pool) put(r *record) {
	p.drop(p.byMAC[r.MAC])
	p.drop(p.byAddr[r.Address])
	p.byMAC[r.MAC], p.byAddr[r.Address] = r, r
}

func (p *pool) drop(r *record) {
	if r != nil {
		delete(p.byMAC, r.MAC)
		delete(p.byAddr, r.Address)
	}
}

// available reports whether m may have the address: it is one for guests, not
// reserved or held by another MAC, and nobody found it in use.
func (p *pool) available(a netip.Addr, m mac.Addr, now time.Time) bool {
	if !p.cfg.usable(a) {
		return false
	}
	owner, reserved := p.cfg.reserved(a)
	if reserved && owner != m || !reserved && !p.cfg.inRange(a) {
		return false
	}
	if until, ok := p.declined[a]; ok {
		if now.Before(until) {
			return false
		}
		delete(p.declined, a)
	}
	r := p.byAddr[a]
	return r == nil || r.MAC == m || !r.Active(now)
}

// choose picks the address for m: the reserved one, the one it has or had, the
// one it asks for, one that nobody had yet, the one that expired first (RFC
// 2131, 4.3.1), and at last the one whose decline is oldest.
func (p *pool) choose(m mac.Addr, asked netip.Addr, now time.Time) (netip.Addr, bool) {
	if f, ok := p.cfg.fixedFor(m); ok && p.available(f.Address, m, now) {
		return f.Address, true
	}
	if r := p.byMAC[m]; r != nil && p.available(r.Address, m, now) {
		return r.Address, true
	}
	if p.available(asked, m, now) {
		return asked, true
	}
	for a := p.cfg.first(); p.cfg.Subnet.Contains(a) && p.cfg.inRange(a); a = a.Next() {
		if p.byAddr[a] == nil && p.available(a, m, now) {
			return a, true
		}
	}
	var oldest *record
	for a, r := range p.byAddr {
		if p.available(a, m, now) && (oldest == nil || older(r, oldest)) {
			oldest = r
		}
	}
	if oldest != nil {
		return oldest.Address, true
	}
	return p.undecline(m, now)
}

func older(a, b *record) bool {
	return cmp.Or(a.Expires.Compare(b.Expires), a.Address.Compare(b.Address)) < 0
}

// undecline lets a guest that declines everything lock nobody out.
func (p *pool) undecline(m mac.Addr, now time.Time) (netip.Addr, bool) {
	for len(p.declined) > 0 {
		var first netip.Addr
		for a, until := range p.declined {
			if !first.IsValid() || until.Before(p.declined[first]) {
				first = a
			}
		}
		delete(p.declined, first)
		if p.available(first, m, now) {
			return first, true
		}
	}
	return netip.Addr{}, false
}

// decline takes an address away from m and keeps it back.
func (p *pool) decline(r *record, now time.Time) {
	p.drop(r)
	p.declined[r.Address] = now.Add(declineTime)
}

// leases returns what is held now, ordered by address.
func (p *pool) leases(now time.Time) []Lease {
	var out []Lease
	for _, r := range p.byMAC {
		if !r.offered && r.Active(now) {
			l := r.Lease
			f, ok := p.cfg.fixedFor(l.MAC)
			l.Fixed = ok && f.Address == l.Address
			out = append(out, l)
		}
	}
	slices.SortFunc(out, func(a, b Lease) int { return a.Address.Compare(b.Address) })
	return out
}
