package regs

import (
	"encoding/binary"
	"fmt"
)

var le = binary.LittleEndian

// short reports that a structure does not fit into the bytes given.
func short(what string, got, want int) error {
	return fmt.Errorf("%s of %d bytes, need %d", what, got, want)
}

// Command is one entry of the command ring.
type Command struct {
	Opcode  Opcode
	Flags   Flags
	Param   Alg
	Aux     uint16
	Tag     uint32
	KeyID   uint32
	Src0    uint64
	Src1    uint64
	Dst0    uint64
	Dst1    uint64
	Src0Len uint32
	Src1Len uint32
	Dst0Len uint32
	Dst1Len uint32
}

// Put writes the command to the first CommandSize bytes of b, which must hold them.
func (c *Command) Put(b []byte) {
	_ = b[CommandSize-1]
	le.PutUint16(b[0x00:], uint16(c.Opcode))
	le.PutUint16(b[0x02:], uint16(c.Flags))
	le.PutUint16(b[0x04:], uint16(c.Param))
	le.PutUint16(b[0x06:], c.Aux)
	le.PutUint32(b[0x08:], c.Tag)
	le.PutUint32(b[0x0C:], c.KeyID)
	le.PutUint64(b[0x10:], c.Src0)
	le.PutUint64(b[0x18:], c.Src1)
	le.PutUint64(b[0x20:], c.Dst0)
	le.PutUint64(b[0x28:], c.Dst1)
	le.PutUint32(b[0x30:], c.Src0Len)
	le.PutUint32(b[0x34:], c.Src1Len)
	le.PutUint32(b[0x38:], c.Dst0Len)
	le.PutUint32(b[0x3C:], c.Dst1Len)
}

// ParseCommand reads a command from the first CommandSize bytes of b.
func ParseCommand(b []byte) (Command, error) {
	if len(b) < CommandSize {
		return Command{}, short("command", len(b), CommandSize)
	}
	return Command{
		Opcode:  Opcode(le.Uint16(b[0x00:])),
		Flags:   Flags(le.Uint16(b[0x02:])),
		Param:   Alg(le.Uint16(b[0x04:])),
		Aux:     le.Uint16(b[0x06:]),
		Tag:     le.Uint32(b[0x08:]),
		KeyID:   le.Uint32(b[0x0C:]),
		Src0:    le.Uint64(b[0x10:]),
		Src1:    le.Uint64(b[0x18:]),
		Dst0:    le.Uint64(b[0x20:]),
		Dst1:    le.Uint64(b[0x28:]),
		Src0Len: le.Uint32(b[0x30:]),
		Src1Len: le.Uint32(b[0x34:]),
		Dst0Len: le.Uint32(b[0x38:]),
		Dst1Len: le.Uint32(b[0x3C:]),
	}, nil
}

// Response is one entry of the response ring.
type Response struct {
	Tag       uint32
	Opcode    Opcode
	SQHead    uint16
	Out0Len   uint32
	Out1Len   uint32
	KeyID     uint32
	Detail    Detail
	LatencyNS uint32
	Status    RespStatus
	Flags     RespFlags
}

// ResponseTail is the offset of the dword that is written last and holds status and phase.
const ResponseTail = 0x1C

// Tail is that dword: STATUS in the low half, FLAGS in the high one.
func (r *Response) Tail() uint32 { return uint32(r.Flags)<<16 | uint32(r.Status) }

// SplitTail undoes Tail.
func SplitTail(v uint32) (RespStatus, RespFlags) { return RespStatus(v), RespFlags(v >> 16) }

// Put writes the response to the first ResponseSize bytes of b, which must hold them.
func (r *Response) Put(b []byte) {
	_ = b[ResponseSize-1]
	le.PutUint32(b[0x00:], r.Tag)
	le.PutUint16(b[0x04:], uint16(r.Opcode))
	le.PutUint16(b[0x06:], r.SQHead)
	le.PutUint32(b[0x08:], r.Out0Len)
	le.PutUint32(b[0x0C:], r.Out1Len)
	le.PutUint32(b[0x10:], r.KeyID)
	le.PutUint32(b[0x14:], uint32(r.Detail))
	le.PutUint32(b[0x18:], r.LatencyNS)
	le.PutUint32(b[ResponseTail:], r.Tail())
}

// ParseResponse reads a response from the first ResponseSize bytes of b.
func ParseResponse(b []byte) (Response, error) {
	if len(b) < ResponseSize {
		return Response{}, short("response", len(b), ResponseSize)
	}
	r := Response{
		Tag:       le.Uint32(b[0x00:]),
		Opcode:    Opcode(le.Uint16(b[0x04:])),
		SQHead:    le.Uint16(b[0x06:]),
		Out0Len:   le.Uint32(b[0x08:]),
		Out1Len:   le.Uint32(b[0x0C:]),
		KeyID:     le.Uint32(b[0x10:]),
		Detail:    Detail(le.Uint32(b[0x14:])),
		LatencyNS: le.Uint32(b[0x18:]),
	}
	r.Status, r.Flags = SplitTail(le.Uint32(b[ResponseTail:]))
	return r, nil
}

// SG is one entry of a scatter-gather list.
type SG struct {
	Addr  uint64
	Len   uint32
	Flags uint32
}

// SGLast marks the final entry of a list; all other flags are reserved.
const SGLast uint32 = 1

// SGSize is the size of an entry in bytes.
const SGSize = 16

// Put writes the entry to the first SGSize bytes of b, which must hold them.
func (s SG) Put(b []byte) {
	_ = b[SGSize-1]
	le.PutUint64(b[0:], s.Addr)
	le.PutUint32(b[8:], s.Len)
	le.PutUint32(b[12:], s.Flags)
}

// ParseSG reads an entry from the first SGSize bytes of b.
func ParseSG(b []byte) (SG, error) {
	if len(b) < SGSize {
		return SG{}, short("scatter-gather entry", len(b), SGSize)
	}
	return SG{Addr: le.Uint64(b[0:]), Len: le.Uint32(b[8:]), Flags: le.Uint32(b[12:])}, nil
}
