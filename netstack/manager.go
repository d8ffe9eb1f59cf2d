package netstack

import (
	"context"
	"errors"
	"os"
)

var errNotYet = errors.New("netstack: under construction")

// Manager brings the kernel's network to the wanted State and keeps it there.
// Its methods may be called from any goroutine.
type Manager struct{}

// New makes a manager that has not touched anything yet.
func New(opts Options) *Manager { return &Manager{} }

// Apply makes state the wanted state and reconciles at once. It returns when
// bridges, DHCP servers and rules are as wanted, or with the first problem
// (which Status shows too, and which is tried again in the background with
// back-off). It does not wait for the uplink: see Settled. A state that is
// wrong in itself (overlapping subnets, bad addresses) is refused with
// QV_NET_ERR_CREATE and changes nothing.
func (m *Manager) Apply(ctx context.Context, state State) error { return errNotYet }

// Settled waits until the uplink has its address or its failure is known (no
// carrier, no answer), and returns the status. The error is ctx's.
func (m *Manager) Settled(ctx context.Context) (UplinkStatus, error) {
	return UplinkStatus{}, errNotYet
}

// AddPort makes the TAP device of a port and attaches it to the bridge of the
// network. The returned file is the only thing that keeps the device: it goes
// away with the last copy of the descriptor, so the caller passes it to the VM
// process and closes it. The device has IFF_VNET_HDR set with the 12 byte
// header of virtio 1.0 and one queue; offloads are off until the VM process
// sets them. Errors: QV_ERR_NOENT for an unknown network, QV_NET_ERR_MAC,
// QV_NET_ERR_MTU, QV_NET_ERR_TAP, QV_NET_ERR_BRIDGE.
func (m *Manager) AddPort(ctx context.Context, network string, p Port) (tap *os.File, name string, err error) {
	return nil, "", errNotYet
}

// RemovePort removes the TAP device of a port if it is still there. It is
// needed only when the VM process cannot be trusted to be gone.
func (m *Manager) RemovePort(ctx context.Context, network, portID string) error {
	return errNotYet
}

// Leases returns the unexpired leases of a network, ordered by address.
// QV_ERR_NOENT if there is no such network.
func (m *Manager) Leases(network string) ([]Lease, error) { return nil, errNotYet }

// Status is what the node's network really is.
func (m *Manager) Status() Status { return Status{} }

// Close ends all goroutines and leaves the kernel's state alone, so that a new
// manager can adopt it.
func (m *Manager) Close() error { return nil }
