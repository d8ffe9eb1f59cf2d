package netstack

import (
	"crypto/sha256"
	"encoding/hex"
	"log/slog"
	"net/netip"
	"os"
	"strings"

	"github.com/google/uuid"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/mac"
	"quantavirt/netstack/uplink"
)

// Types of the sub-packages that are part of the manager's interface.
type (
	// UplinkConfig is the wanted state of the uplink.
	UplinkConfig = uplink.Config
	// UplinkStatus is what the uplink really is.
	UplinkStatus = uplink.Status
	// Lease is an address that a guest got from the DHCP server.
	Lease = dhcp.Lease
	// FixedLease reserves an address for a MAC.
	FixedLease = dhcp.Fixed
	// LeaseStore keeps leases over a restart.
	LeaseStore = dhcp.Store
	// MAC is an Ethernet address.
	MAC = mac.Addr
)

// DefaultNetworkName and DefaultBridge name the network that every node has.
const (
	DefaultNetworkName = "default"
	DefaultBridge      = "qvbr0"
)

// Options of New.
type Options struct {
	// Logger gets one line an event; nil means slog.Default().
	Logger *slog.Logger
	// Leases keeps the leases of all networks; nil keeps them in RAM.
	Leases LeaseStore
	// ResolvConf is written with the uplink's name servers, normally
	// /etc/resolv.conf; empty: no file is written.
	ResolvConf string
	// RunDir keeps the uplink's lease over a restart of the daemon, not of the
	// node, normally /run/quantavirt; empty: every start asks the server anew.
	RunDir string
	// Hostname goes to the uplink's DHCP server; empty: not sent.
	Hostname string
	// BootCard is the network card that the node was booted from, which becomes
	// the uplink unless State says otherwise; zero: from none.
	BootCard MAC
	// BootFile opens a file that guests boot, by its name in Boot; nil: there are none.
	// It is called from many goroutines.
	BootFile func(name string) (*os.File, error)
	// OnChange is called after the status changed, one call at a time, never
	// while the manager holds a lock. It must not block. May be nil.
	OnChange func(Status)
}

// State is the wanted state of the node's network.
type State struct {
	Uplink   UplinkConfig `json:"uplink"`
	Networks []Network    `json:"networks"`
}

// Network is a virtual network of guests: one bridge.
type Network struct {
	Name   string       `json:"name"`
	ID     string       `json:"id"`            // uuid
	Bridge string       `json:"bridge"`        // empty: BridgeName(ID)
	Subnet netip.Prefix `json:"subnet"`        // address of the bridge with the length, e.g. 192.168.200.1/24
	DHCP   bool         `json:"dhcp"`          // serve addresses
	NAT    bool         `json:"nat"`           // guests reach the world through the uplink's address
	MTU    int          `json:"mtu,omitempty"` // bytes; 0 means 1500
	DNS    []netip.Addr `json:"dns,omitempty"` // empty: the uplink's servers
	Domain string       `json:"domain,omitempty"`
	Fixed  []FixedLease `json:"fixed,omitempty"` // must lie in the subnet
	Boot   *Boot        `json:"boot,omitempty"`  // needs DHCP
}

// Port is a network card of a VM on a network.
type Port struct {
	ID       string // see PortID; unique on the node
	MAC      MAC    // as the guest sees it; unique on the node
	MTU      int    // bytes; 0 means that of the network, and it may not be larger
	Queues   int    // of the TAP device, 1 to tap.MaxQueues; 0 means 1
	Hostname string // name for the guest, offered by DHCP; may be empty
}

// PortInfo is a port as the kernel has it.
type PortInfo struct {
	ID       string `json:"id"`
	MAC      MAC    `json:"mac"`
	TAP      string `json:"tap"`
	Attached bool   `json:"attached"` // to the bridge of its network
}

// NetworkStatus is what a network really is.
type NetworkStatus struct {
	Network
	Ready   bool         `json:"ready"` // bridge, DHCP and NAT work
	Problem *qverr.Error `json:"-"`     // why it is not ready
	Ports   []PortInfo   `json:"ports"`
}

// Status is what the node's network really is.
type Status struct {
	Uplink   UplinkStatus    `json:"uplink"`
	Networks []NetworkStatus `json:"networks"` // in the order of State
}

// DefaultNetwork is the network `default` of a fresh node: qvbr0 with
// 192.168.200.1/24, DHCP and NAT. Its id is the same on every node.
func DefaultNetwork() Network {
	return Network{
		Name: DefaultNetworkName, ID: uuid.NewSHA1(uuid.Nil, []byte("quantavirt network default")).String(),
		Bridge: DefaultBridge, Subnet: netip.MustParsePrefix("192.168.200.1/24"), DHCP: true, NAT: true, MTU: 1500,
	}
}

// BridgeName is the bridge of a network with this id: qvb and 8 hex digits.
func BridgeName(id string) string { return "qvb" + hex8(id) }

// TAPName is the TAP device of a port with this id: qvt and 8 hex digits.
func TAPName(portID string) string { return "qvt" + hex8(portID) }

// PortID is the id of network card index of the VM with this uuid: itself a
// uuid, always the same.
func PortID(vm uuid.UUID, index int) string {
	return uuid.NewSHA1(vm, []byte{'n', 'i', 'c', byte(index >> 8), byte(index)}).String()
}

// MACFor is the MAC of network card index of a VM that names none: always the
// same, unicast, locally administered.
func MACFor(vm uuid.UUID, index int) MAC { return mac.ForVM(vm, index) }

// hex8 is the first 8 digits of a uuid; any other id is hashed.
func hex8(id string) string {
	if u, err := uuid.Parse(id); err == nil {
		return strings.ReplaceAll(u.String(), "-", "")[:8]
	}
	sum := sha256.Sum256([]byte(id))
	return hex.EncodeToString(sum[:4])
}
