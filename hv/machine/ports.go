package machine

import (
	"sort"

	"quantavirt/hv/kvm"
	"quantavirt/hv/serial"
)

// Ports of the devices below.
const (
	portCOM1   = 0x3f8
	portCMOS   = 0x70
	portKBD    = 0x64
	portA      = 0x92
	portPM     = 0x600
	portGPE    = 0x620
	portConfig = 0xcf8
	portReset  = 0xcf9

	kbdPulseReset = 0xfe
	cf9Reset      = 1 << 2
	portAReset    = 1 << 0
)

// portDevice serves accesses of 1, 2 or 4 bytes at an offset in its range. A
// write may ask the machine for something.
type portDevice interface {
	readPort(off uint16, data []byte)
	writePort(off uint16, data []byte) eventKind
}

type portRange struct {
	first, count uint16
	dev          portDevice
}

// portMap lists the devices on ports, by ascending port.
func (m *Machine) portMap() []portRange {
	list := []portRange{
		{portKBD, 1, resetPort{pulse: func(v uint8) bool { return v == kbdPulseReset }, read: 0xff}},
		{portCMOS, 2, m.rtc},
		// Bit 1 is A20; firmware writes back what it reads, so bit 0 must
		// never read as set.
		{portA, 1, resetPort{pulse: func(v uint8) bool { return v&portAReset != 0 }, read: 0x02}},
		{portCOM1, serial.Ports, comPort{m.uart}},
		{portPM, pmPorts, m.pm},
		{portGPE, gpePorts, gpeBlock{m.pm}},
		{portConfig, 8, configPort{m}},
	}
	list = append(list, m.firmwarePorts()...)
	sort.Slice(list, func(i, j int) bool { return list[i].first < list[j].first })
	return list
}

// portAccess serves an access to a port, which may be a string of them.
func (m *Machine) portAccess(a kvm.IO) event {
	i := sort.Search(len(m.ports), func(i int) bool { return m.ports[i].first > a.Port }) - 1
	if i < 0 || a.Port-m.ports[i].first >= m.ports[i].count {
		if !a.Write {
			ones(a.Data)
		}
		return event{}
	}
	r := m.ports[i]
	for data := a.Data; len(data) >= a.Size && a.Size > 0; data = data[a.Size:] {
		if !a.Write {
			r.dev.readPort(a.Port-r.first, data[:a.Size])
		} else if kind := r.dev.writePort(a.Port-r.first, data[:a.Size]); kind != 0 {
			return event{kind: kind}
		}
	}
	return event{}
}

// resetPort is a register that resets the machine.
type resetPort struct {
	pulse func(uint8) bool
	read  uint8
}

func (p resetPort) readPort(_ uint16, data []byte) {
	ones(data)
	data[0] = p.read
}

func (p resetPort) writePort(_ uint16, data []byte) eventKind {
	if p.pulse(data[0]) {
		return eventReset
	}
	return 0
}

// comPort puts a UART on ports. Each byte of a wider access is a register.
type comPort struct{ uart *serial.UART }

func (p comPort) readPort(off uint16, data []byte) {
	for i := range data {
		data[i] = 0xff
		if reg := off + uint16(i); reg < serial.Ports {
			data[i] = p.uart.ReadPort(reg)
		}
	}
}

func (p comPort) writePort(off uint16, data []byte) eventKind {
	for i, v := range data {
		if reg := off + uint16(i); reg < serial.Ports {
			p.uart.WritePort(reg, v)
		}
	}
	return 0
}

// configPort is the PCI configuration mechanism at CF8 and CFC, with the reset
// register in the middle of it: only a byte access to CF9 means that one.
type configPort struct{ m *Machine }

func (p configPort) readPort(off uint16, data []byte) {
	if off == portReset-portConfig && len(data) == 1 {
		data[0] = 0
		return
	}
	p.m.bus.ReadPort(portConfig+off, data)
}

func (p configPort) writePort(off uint16, data []byte) eventKind {
	if off == portReset-portConfig && len(data) == 1 {
		if data[0]&cf9Reset != 0 {
			return eventReset
		}
		return 0
	}
	p.m.bus.WritePort(portConfig+off, data)
	return 0
}
