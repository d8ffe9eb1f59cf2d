package netboot

import (
	"cmp"
	"net/netip"
	"slices"
	"sync"
	"time"

	"github.com/google/uuid"
)

// Bounds of what is kept: a flood of invented machines pushes others out of
// the status page and does nothing else.
const (
	maxMachines = 1024
	maxEvents   = 20
)

// Machine is what the status page says of one.
type Machine struct {
	MAC     string    `json:"mac,omitempty"` // none for one that is known by its address only
	Name    string    `json:"name,omitempty"`
	Serial  string    `json:"serial,omitempty"`
	UUID    string    `json:"uuid,omitempty"`
	Address string    `json:"address,omitempty"`
	First   time.Time `json:"first_seen"`
	Last    time.Time `json:"last_seen"`
	Fetched bool      `json:"fetched"` // its configuration, since the server runs
	Events  []Event   `json:"events"`  // the last 20, oldest first

	turn uint64 // of its last request; times are too coarse to order by
}

// Event is one request.
type Event struct {
	At     time.Time `json:"at"`
	Asked  string    `json:"asked"`
	Answer string    `json:"answer"`
}

// machines are those that have asked for something. Those with a MAC address
// are kept by it, others by their address.
type machines struct {
	now func() time.Time

	mu        sync.Mutex
	turn      uint64 // counts requests
	byKey     map[string]*Machine
	byAddress map[netip.Addr]string // key of the machine that has an address
}

func newMachines() *machines {
	return &machines{now: func() time.Time { return time.Now().UTC().Truncate(time.Second) }, byKey: make(map[string]*Machine), byAddress: make(map[netip.Addr]string)}
}

// record keeps an event of a machine. With no MAC address in id, the machine is
// the one that was last seen with the address. It returns how the machine is
// called in a log.
func (s *machines) record(id Identity, name string, address netip.Addr, asked, answer string) (label, known string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	m := s.at(id, address)
	m.Last = s.now()
	s.turn++
	m.turn = s.turn
	m.Name = cmp.Or(name, m.Name)
	m.Serial = cmp.Or(id.Serial, m.Serial)
	if id.UUID != uuid.Nil {
		m.UUID = id.UUID.String()
	}
	m.Events = append(m.Events, Event{At: m.Last, Asked: asked, Answer: answer})
	if extra := len(m.Events) - maxEvents; extra > 0 {
		m.Events = slices.Delete(m.Events, 0, extra)
	}
	return cmp.Or(m.MAC, m.Address, m.Serial, m.UUID), m.Name
}

func (s *machines) at(id Identity, address netip.Addr) *Machine {
	key := address.String()
	switch {
	case !id.MAC.IsZero():
		key = id.MAC.String()
	case s.byAddress[address] != "":
		key = s.byAddress[address]
	}
	m := s.byKey[key]
	if m == nil {
		s.makeRoom()
		m = &Machine{First: s.now()}
		s.byKey[key] = m
	}
	if !id.MAC.IsZero() {
		m.MAC = id.MAC.String()
	}
	if address.IsValid() && m.Address != address.String() {
		if old, err := netip.ParseAddr(m.Address); err == nil && s.byAddress[old] == key {
			delete(s.byAddress, old)
		}
		s.byAddress[address] = key
		m.Address = address.String()
	}
	return m
}

// makeRoom forgets the machine that was silent for longest.
func (s *machines) makeRoom() {
	if len(s.byKey) < maxMachines {
		return
	}
	oldest := ""
	for key, m := range s.byKey {
		if oldest == "" || m.turn < s.byKey[oldest].turn {
			oldest = key
		}
	}
	delete(s.byKey, oldest)
	for a, key := range s.byAddress {
		if key == oldest {
			delete(s.byAddress, a)
		}
	}
}

// setFetched marks a machine that has got its configuration, or has not any
// more.
func (s *machines) setFetched(m Identity, fetched bool) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if k := s.byKey[m.MAC.String()]; k != nil {
		k.Fetched = fetched
	}
}

// list returns copies, ordered by MAC address and address.
func (s *machines) list() []Machine {
	s.mu.Lock()
	defer s.mu.Unlock()
	out := make([]Machine, 0, len(s.byKey))
	for _, m := range s.byKey {
		c := *m
		c.Events = slices.Clone(m.Events)
		out = append(out, c)
	}
	slices.SortFunc(out, func(a, b Machine) int { return cmp.Or(cmp.Compare(a.MAC, b.MAC), cmp.Compare(a.Address, b.Address)) })
	return out
}
