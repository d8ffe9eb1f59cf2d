package machine

import (
	"bytes"
	"encoding/binary"
	"testing"

	"quantavirt/hv/kvm"
)

// somePorts are where a guest finds something, and their neighbours.
var somePorts = []uint16{0, portKBD - 1, portKBD, portCMOS, portCMOS + 1, portA, portCOM1 - 1, portCOM1, portCOM1 + 1, portCOM1 + 2,
	portCOM1 + 3, portCOM1 + 4, portCOM1 + 7, portPM, portPM + 2, portPM + 4, portPM + 8, portConfig, portReset, portConfig + 4, 0xffff}

// FuzzPorts has a guest access ports of any number, width and count, and memory where
// no RAM is: nothing but a reset or power-off may come of it.
func FuzzPorts(f *testing.F) {
	f.Add([]byte("\x01\x07\x00\x00a\x00\x00\x00" + "\x00\x08\x00\x02\x00\x00\x00\x00"))
	f.Add([]byte("\x03\x04\x06\x01\x00\x34\x00\x00" + "\x01\x11\x00\x02\x00\x80\x00\x80"))
	f.Add([]byte("\x04\x00\x00\xc0\x03\x00\x00\x00" + "\x05\x00\x00\xd0\x03\x00\x00\x00"))
	f.Fuzz(func(t *testing.T, in []byte) {
		m, out, _ := board(t)
		for ; len(in) >= 8; in = in[8:] {
			if in[0]&4 != 0 {
				fuzzMemory(t, m, in)
				continue
			}
			io := kvm.IO{Write: in[0]&1 != 0, Port: binary.LittleEndian.Uint16(in[1:]), Size: 1 << (in[3] & 3 % 3)}
			if in[0]&2 == 0 {
				io.Port = somePorts[int(in[1])%len(somePorts)] + uint16(in[2]&1)
			}
			count := 1 + int(in[3]>>2)
			io.Data = bytes.Repeat(in[4:8], io.Size*count/4+1)[:io.Size*count]
			e := m.portAccess(io)
			if e.kind != 0 && (!io.Write || e.kind != eventReset && e.kind != eventPowerOff || e.err != nil) {
				t.Fatalf("%+v leads to %+v", io, e)
			}
			if len(io.Data) != io.Size*count || !io.Write && !m.claimed(io.Port) && !allOnes(io.Data) {
				t.Fatalf("%+v", io)
			}
			if e.kind == eventReset {
				m.uart.Reset()
				m.pm.reset()
				m.rtc.reset()
			}
		}
		if out.Len() > 64*len(in)*1024+1<<20 {
			t.Fatalf("%d bytes printed", out.Len())
		}
	})
}

func (m *Machine) claimed(port uint16) bool {
	for _, r := range m.ports {
		if port >= r.first && port-r.first < r.count {
			return true
		}
	}
	return false
}

func allOnes(data []byte) bool {
	for _, b := range data {
		if b != 0xff {
			return false
		}
	}
	return true
}

// fuzzMemory accesses ECAM and what nobody claims.
func fuzzMemory(t *testing.T, m *Machine, in []byte) {
	t.Helper()
	a := kvm.MMIO{Write: in[0]&1 != 0, Addr: uint64(binary.LittleEndian.Uint32(in[1:]))<<4 | uint64(in[5]), Data: bytes.Repeat(in[6:8], 4)[:1<<(in[5]&3)]}
	if in[0]&2 != 0 {
		a.Addr = ecamBase + a.Addr%(ecamSize+16)
	}
	m.memoryAccess(a)
	outside := a.Addr < ecamBase || a.Addr >= ecamBase+ecamSize
	if !a.Write && outside && !allOnes(a.Data) {
		t.Fatalf("%+v", a)
	}
}
