package machine

import (
	"math/bits"

	"quantavirt/hv/config"
)

// topology is how the vCPUs are grouped, which their APIC ids tell: the lowest bits
// number the threads of a core, then come the cores of a socket, then the sockets.
type topology struct {
	config.Topology
	threadBits, coreBits int
}

func newTopology(t config.Topology, count int) topology {
	t = t.Resolve(count)
	return topology{t, idBits(t.Threads), idBits(t.Cores)}
}

// idBits is how many bits of an APIC id number count things.
func idBits(count int) int { return bits.Len(uint(count - 1)) }

// packageBits is how many bits number the vCPUs of one socket.
func (t topology) packageBits() int { return t.threadBits + t.coreBits }

// perSocket is how many vCPUs a socket has.
func (t topology) perSocket() int { return t.Cores * t.Threads }

// apicID of vCPU index; it is also the id that KVM knows the vCPU by.
func (t topology) apicID(index int) uint32 {
	thread, core, socket := index%t.Threads, index/t.Threads%t.Cores, index/t.perSocket()
	return uint32(socket<<t.packageBits() | core<<t.threadBits | thread)
}

// apicIDs are those of all vCPUs, by index.
func (t topology) apicIDs() []uint32 {
	ids := make([]uint32, t.Sockets*t.perSocket())
	for i := range ids {
		ids[i] = t.apicID(i)
	}
	return ids
}

// wide tells whether an APIC id needs x2APIC: 255 is everybody in the old mode.
func (t topology) wide() bool {
	return t.apicID(t.Sockets*t.perSocket()-1) >= 255
}
