package dhcp

import (
	"net/netip"
	"sync"
	"time"

	"quantavirt/netstack/mac"
)

// Lease is an address that belongs to a client until it expires. A record may
// outlive its expiry: the client gets the same address again if it is free.
type Lease struct {
	MAC      mac.Addr   `json:"mac"`
	Address  netip.Addr `json:"address"`
	Hostname string     `json:"hostname,omitempty"` // as the client named itself, checked to be a DNS label
	Expires  time.Time  `json:"expires"`
	Fixed    bool       `json:"fixed,omitempty"` // reserved for this MAC
}

// Active reports whether the client may use the address at this time.
func (l Lease) Active(now time.Time) bool { return now.Before(l.Expires) }

// Fixed reserves an address for a hardware address.
type Fixed struct {
	MAC      mac.Addr   `json:"mac"`
	Address  netip.Addr `json:"address"`
	Hostname string     `json:"hostname,omitempty"` // given to the client, if not empty
}

// Store keeps leases over a restart. Calls for one network come one at a time.
type Store interface {
	// Load returns all leases of a network, in any order.
	Load(networkID string) ([]Lease, error)
	// Save inserts or replaces the lease of l.MAC and returns when it is durable.
	Save(networkID string, l Lease) error
	// Delete removes the lease of m; it is no error if there is none.
	Delete(networkID string, m mac.Addr) error
}

// Memory is a Store that lives as long as the process.
type Memory struct {
	mu     sync.Mutex
	leases map[string]map[mac.Addr]Lease
}

// Load implements Store.
func (s *Memory) Load(networkID string) ([]Lease, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	var out []Lease
	for _, l := range s.leases[networkID] {
		out = append(out, l)
	}
	return out, nil
}

// Save implements Store.
func (s *Memory) Save(networkID string, l Lease) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.leases == nil {
		s.leases = make(map[string]map[mac.Addr]Lease)
	}
	if s.leases[networkID] == nil {
		s.leases[networkID] = make(map[mac.Addr]Lease)
	}
	s.leases[networkID][l.MAC] = l
	return nil
}

// Delete implements Store.
func (s *Memory) Delete(networkID string, m mac.Addr) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.leases[networkID], m)
	return nil
}
