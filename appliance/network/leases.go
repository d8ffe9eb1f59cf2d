package network

import (
	"strings"

	"quantavirt/appliance/store"
	"quantavirt/netstack"
)

// leases keeps DHCP leases in the state file, under "NETWORK/MAC".
type leases struct{ db *store.DB }

func leaseKey(network string, mac netstack.MAC) string { return network + "/" + mac.String() }

// Load returns the leases of a network.
func (l leases) Load(network string) ([]netstack.Lease, error) {
	var out []netstack.Lease
	err := l.db.View(func(tx *store.Tx) error {
		for _, key := range tx.Keys(store.Leases) {
			if !strings.HasPrefix(key, network+"/") {
				continue
			}
			var lease netstack.Lease
			if err := tx.Get(store.Leases, key, &lease); err != nil {
				return err
			}
			out = append(out, lease)
		}
		return nil
	})
	return out, err
}

// Save inserts or replaces a lease.
func (l leases) Save(network string, lease netstack.Lease) error {
	return l.db.Put(store.Leases, leaseKey(network, lease.MAC), lease)
}

// Delete removes a lease.
func (l leases) Delete(network string, mac netstack.MAC) error {
	return l.db.Delete(store.Leases, leaseKey(network, mac))
}
