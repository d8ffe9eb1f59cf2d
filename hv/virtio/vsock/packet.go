package vsock

import "encoding/binary"

// hostCID is the context id of every guest's host.
const hostCID = 2

// headerSize is that of struct virtio_vsock_hdr, section 5.10.6.
const headerSize = 44

const typeStream = 1

// Operations, section 5.10.6.
const (
	opRequest       = 1
	opResponse      = 2
	opReset         = 3
	opShutdown      = 4
	opData          = 5
	opCreditUpdate  = 6
	opCreditRequest = 7

	shutdownReceive = 1
	shutdownSend    = 2
)

// header is struct virtio_vsock_hdr.
type header struct {
	srcCID, dstCID   uint64
	srcPort, dstPort uint32
	length           uint32
	kind, op         uint16
	flags            uint32
	bufAlloc, fwdCnt uint32
}

func (h *header) decode(b *[headerSize]byte) {
	le := binary.LittleEndian
	h.srcCID, h.dstCID = le.Uint64(b[0:]), le.Uint64(b[8:])
	h.srcPort, h.dstPort = le.Uint32(b[16:]), le.Uint32(b[20:])
	h.length = le.Uint32(b[24:])
	h.kind, h.op = le.Uint16(b[28:]), le.Uint16(b[30:])
	h.flags = le.Uint32(b[32:])
	h.bufAlloc, h.fwdCnt = le.Uint32(b[36:]), le.Uint32(b[40:])
}

func (h *header) encode(b *[headerSize]byte) {
	le := binary.LittleEndian
	le.PutUint64(b[0:], h.srcCID)
	le.PutUint64(b[8:], h.dstCID)
	le.PutUint32(b[16:], h.srcPort)
	le.PutUint32(b[20:], h.dstPort)
	le.PutUint32(b[24:], h.length)
	le.PutUint16(b[28:], h.kind)
	le.PutUint16(b[30:], h.op)
	le.PutUint32(b[32:], h.flags)
	le.PutUint32(b[36:], h.bufAlloc)
	le.PutUint32(b[40:], h.fwdCnt)
}
