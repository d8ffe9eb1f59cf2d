package nat

import "net/netip"

// TableName is our table; no other is touched.
const TableName = "quantavirt"

// BridgePrefix is what the names of all VM bridges begin with.
const BridgePrefix = "qvb"

// Config is the wanted state.
type Config struct {
	Uplink   string // interface; empty: not known, nothing is translated yet
	Networks []Network
}

// Network is one VM network.
type Network struct {
	Bridge string
	Subnet netip.Prefix // address of the bridge with the length of the subnet
	DHCP   bool         // the node serves DHCP on it
	NAT    bool         // guests may reach the world
	TFTP   bool         // the node serves files to guests that boot from it
}
