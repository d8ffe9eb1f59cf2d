package machine

// The general purpose event block (ACPI 6.5, 4.8.4.1): 16 events, each with a status
// bit, which is written with one to clear it, and an enable bit. An event that is
// both raises the SCI.
const (
	gpeStatus = 0
	gpeEnable = 2
	gpePorts  = 4
)

// gpeBlock puts the events of the power management on ports.
type gpeBlock struct{ pm *powerManagement }

func (g gpeBlock) readPort(off uint16, data []byte) {
	p := g.pm
	p.mu.Lock()
	defer p.mu.Unlock()
	for i := range data {
		data[i] = 0xff
		switch at := off + uint16(i); {
		case at < gpeEnable:
			data[i] = byte(p.events >> (8 * at))
		case at < gpePorts:
			data[i] = byte(p.eventsOn >> (8 * (at - gpeEnable)))
		}
	}
}

func (g gpeBlock) writePort(off uint16, data []byte) eventKind {
	p := g.pm
	p.mu.Lock()
	defer p.mu.Unlock()
	for i, b := range data {
		v, shift := uint16(b), 8*((off+uint16(i))&1)
		switch at := off + uint16(i); {
		case at < gpeEnable:
			p.events &^= v << shift
		case at < gpePorts:
			p.eventsOn = p.eventsOn&^(0xff<<shift) | v<<shift
		}
	}
	p.update()
	return 0
}

// raise sets the status of general purpose event n, 0 to 15.
func (p *powerManagement) raise(n int) {
	p.mu.Lock()
	defer p.mu.Unlock()
	p.events |= 1 << n
	p.update()
}
