package efivar

import (
	"encoding/binary"
	"net"
)

const (
	nodeMAC = 0x0b03 // section 10.3.4.10: 32 bytes of address, then the type of interface
	macSize = nodeHeader + 32 + 1
	// ethernet is the type of interface; EDK II's drivers write it, some leave 0.
	ethernet = 1
)

// Card is the Ethernet card in the path of an option that boots from the network,
// by PXE or HTTP.
func (o LoadOption) Card() (net.HardwareAddr, bool) {
	for path := o.Path; len(path) >= nodeHeader; {
		kind, size := binary.LittleEndian.Uint16(path), int(binary.LittleEndian.Uint16(path[2:]))
		if kind&0xff == nodeEnd&0xff || size < nodeHeader || size > len(path) {
			return nil, false
		}
		if kind == nodeMAC && size == macSize && path[macSize-1] <= ethernet {
			return net.HardwareAddr(path[nodeHeader : nodeHeader+6]), true
		}
		path = path[size:]
	}
	return nil, false
}
