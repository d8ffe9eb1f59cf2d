package vfiouser

import (
	"encoding/binary"
	"encoding/json"
	"fmt"
	"syscall"
)

var ne = binary.NativeEndian

// Command numbers.
type command uint16

const (
	cmdVersion       command = 1
	cmdDMAMap        command = 2
	cmdDMAUnmap      command = 3
	cmdGetInfo       command = 4
	cmdGetRegionInfo command = 5
	cmdGetIRQInfo    command = 7
	cmdSetIRQs       command = 8
	cmdRegionRead    command = 9
	cmdRegionWrite   command = 10
	cmdDMARead       command = 11
	cmdDMAWrite      command = 12
	cmdReset         command = 13
)

// Flags of a header: the type in bits 3:0, and bits.
const (
	typeMask    uint32 = 0xF
	typeCommand uint32 = 0
	typeReply   uint32 = 1
	flagNoReply uint32 = 1 << 4
	flagError   uint32 = 1 << 5
)

const (
	headerSize = 16
	// maxData is the most data in one message that either side announces, maxMessage the largest message accepted.
	maxData    = 1 << 20
	maxMessage = headerSize + 64 + maxData
	// maxFDs is the most descriptors in one message; it is also QEMU's ceiling.
	maxFDs     = 16
	maxDMAMaps = 65535
	// dmaChunk is what one DMA message carries. More than the client's send buffer would never arrive.
	dmaChunk = 64 << 10
)

type header struct {
	id    uint16
	cmd   command
	size  uint32 // of the whole message
	flags uint32
	errno uint32
}

func (h *header) put(b []byte) {
	ne.PutUint16(b[0:], h.id)
	ne.PutUint16(b[2:], uint16(h.cmd))
	ne.PutUint32(b[4:], h.size)
	ne.PutUint32(b[8:], h.flags)
	ne.PutUint32(b[12:], h.errno)
}

// parseHeader reads a header and refuses sizes that cannot be.
func parseHeader(b []byte) (header, error) {
	if len(b) < headerSize {
		return header{}, fmt.Errorf("header of %d bytes", len(b))
	}
	h := header{
		id: ne.Uint16(b[0:]), cmd: command(ne.Uint16(b[2:])), size: ne.Uint32(b[4:]),
		flags: ne.Uint32(b[8:]), errno: ne.Uint32(b[12:]),
	}
	if h.size < headerSize || h.size > maxMessage {
		return h, fmt.Errorf("message of %d bytes", h.size)
	}
	if t := h.flags & typeMask; t != typeCommand && t != typeReply {
		return h, fmt.Errorf("message of type %d", t)
	}
	return h, nil
}

// errShort answers a payload that is smaller than its structure.
const errShort = syscall.EINVAL

// DMA map flags.
const (
	mapRead     uint32 = 1 << 0
	mapWrite    uint32 = 1 << 1
	mapModes    uint32 = 3 << 2 // by mmap, by file I/O
	unmapAll    uint32 = 1 << 1
	mapSize            = 32
	unmapSize          = 24
	infoSize           = 16
	regionSize         = 32
	irqInfoSize        = 16
	irqSetSize         = 20
	ioSize             = 16
	versionSize        = 4
)

type dmaMap struct {
	flags        uint32
	offset       uint64
	iova, length uint64
}

func parseDMAMap(b []byte) (m dmaMap, err error) {
	if len(b) < mapSize {
		return m, errShort
	}
	m = dmaMap{flags: ne.Uint32(b[4:]), offset: ne.Uint64(b[8:]), iova: ne.Uint64(b[16:]), length: ne.Uint64(b[24:])}
	if m.length == 0 || m.iova+m.length-1 < m.iova || m.offset+m.length < m.offset || m.length > 1<<62 {
		return m, syscall.EINVAL
	}
	return m, nil
}

func (m *dmaMap) append(b []byte) []byte {
	b = ne.AppendUint32(b, mapSize)
	b = ne.AppendUint32(b, m.flags)
	b = ne.AppendUint64(b, m.offset)
	b = ne.AppendUint64(b, m.iova)
	return ne.AppendUint64(b, m.length)
}

type dmaUnmap struct {
	flags        uint32
	iova, length uint64
}

func parseDMAUnmap(b []byte) (m dmaUnmap, err error) {
	if len(b) < unmapSize {
		return m, errShort
	}
	m = dmaUnmap{flags: ne.Uint32(b[4:]), iova: ne.Uint64(b[8:]), length: ne.Uint64(b[16:])}
	if m.length > 0 && m.iova+m.length-1 < m.iova {
		m.length = -m.iova // to the end of the address space
	}
	return m, nil
}

func (m *dmaUnmap) append(b []byte) []byte {
	b = ne.AppendUint32(b, unmapSize)
	b = ne.AppendUint32(b, m.flags)
	b = ne.AppendUint64(b, m.iova)
	return ne.AppendUint64(b, m.length)
}

// irqSet is SET_IRQS.
type irqSet struct {
	flags               uint32
	index, start, count uint32
	data                []byte
}

// SET_IRQS flags.
const (
	irqNone    uint32 = 1 << 0
	irqBool    uint32 = 1 << 1
	irqEventfd uint32 = 1 << 2
	irqMask    uint32 = 1 << 3
	irqUnmask  uint32 = 1 << 4
	irqTrigger uint32 = 1 << 5
)

func parseIRQSet(b []byte) (s irqSet, err error) {
	if len(b) < irqSetSize {
		return s, errShort
	}
	return irqSet{flags: ne.Uint32(b[4:]), index: ne.Uint32(b[8:]), start: ne.Uint32(b[12:]), count: ne.Uint32(b[16:]), data: b[irqSetSize:]}, nil
}

func (s *irqSet) append(b []byte) []byte {
	for _, v := range []uint32{irqSetSize + uint32(len(s.data)), s.flags, s.index, s.start, s.count} {
		b = ne.AppendUint32(b, v)
	}
	return append(b, s.data...)
}

// regionIO is the front of REGION_READ and REGION_WRITE.
type regionIO struct {
	offset uint64
	region uint32
	count  uint32
	data   []byte // what follows
}

func parseRegionIO(b []byte) (r regionIO, err error) {
	if len(b) < ioSize {
		return r, errShort
	}
	return regionIO{offset: ne.Uint64(b[0:]), region: ne.Uint32(b[8:]), count: ne.Uint32(b[12:]), data: b[ioSize:]}, nil
}

func (r *regionIO) append(b []byte) []byte {
	b = ne.AppendUint64(b, r.offset)
	b = ne.AppendUint32(b, r.region)
	b = ne.AppendUint32(b, r.count)
	return append(b, r.data...)
}

// dmaIO is DMA_READ and DMA_WRITE, and their replies.
type dmaIO struct {
	iova, count uint64
	data        []byte
}

func parseDMAIO(b []byte) (d dmaIO, err error) {
	if len(b) < ioSize {
		return d, errShort
	}
	return dmaIO{iova: ne.Uint64(b[0:]), count: ne.Uint64(b[8:]), data: b[ioSize:]}, nil
}

func (d *dmaIO) append(b []byte) []byte {
	b = ne.AppendUint64(b, d.iova)
	b = ne.AppendUint64(b, d.count)
	return append(b, d.data...)
}

// version is the handshake.
type version struct {
	major, minor uint16
	caps         capabilities
}

type capabilities struct {
	MaxMsgFDs      int    `json:"max_msg_fds,omitempty"`
	MaxDataXfer    uint64 `json:"max_data_xfer_size,omitempty"`
	MaxDMAMaps     int    `json:"max_dma_maps,omitempty"`
	PageSizes      uint64 `json:"pgsizes,omitempty"`
	WriteMultiples bool   `json:"write_multiple,omitempty"`
}

func parseVersion(b []byte) (v version, err error) {
	if len(b) < versionSize {
		return v, errShort
	}
	v.major, v.minor = ne.Uint16(b[0:]), ne.Uint16(b[2:])
	v.caps = capabilities{MaxMsgFDs: 1, MaxDataXfer: maxData}
	text := b[versionSize:]
	for len(text) > 0 && text[len(text)-1] == 0 {
		text = text[:len(text)-1]
	}
	if len(text) == 0 {
		return v, nil
	}
	var body struct {
		Capabilities *capabilities `json:"capabilities"`
	}
	body.Capabilities = &v.caps
	if err := json.Unmarshal(text, &body); err != nil {
		return v, syscall.EINVAL
	}
	if v.caps.MaxDataXfer == 0 {
		v.caps.MaxDataXfer = maxData
	}
	return v, nil
}

func (v *version) append(b []byte) []byte {
	b = ne.AppendUint16(b, v.major)
	b = ne.AppendUint16(b, v.minor)
	text, err := json.Marshal(map[string]any{"capabilities": v.caps})
	if err != nil {
		panic(err) // a fixed structure of numbers
	}
	return append(append(b, text...), 0)
}
