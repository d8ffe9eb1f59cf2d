package console

import (
	"encoding/binary"
	"sync"

	"quantavirt/hv/virtio"
)

// Events of the control queues, section 5.3.6.2.
const (
	eventDeviceReady = 0
	eventPortAdd     = 1
	eventPortReady   = 3
	eventConsolePort = 4
	eventResize      = 5
	eventPortOpen    = 6
	eventPortName    = 7

	messageSize = 8 // le32 port, le16 event, le16 value
)

// port is what the guest is still to be told of one port. It is a state and no queue,
// so that a guest that asks again and again fills no memory.
type port struct {
	name     string
	attached bool // a reader is there
	tell     map[uint16]bool
}

// order is in which order the guest is told.
var order = []uint16{eventPortAdd, eventConsolePort, eventPortName, eventPortOpen, eventResize}

// control serves the two control queues.
type control struct {
	in, out virtio.Worker
	opened  func(port int, open bool)

	mu            sync.Mutex // guards what follows
	ports         []port
	columns, rows uint16
}

func (c *control) init(names []string) {
	c.in.Handle, c.in.Ready = c.send, c.pending
	c.out.Handle = c.receive
	for i, name := range names {
		c.ports = append(c.ports, port{name: name, attached: i == 0, tell: map[uint16]bool{}})
	}
}

// reset forgets what the driver has heard.
func (c *control) reset() {
	c.mu.Lock()
	defer c.mu.Unlock()
	for i := range c.ports {
		clear(c.ports[i].tell)
	}
}

// attach tells the guest whether somebody reads a port.
func (c *control) attach(port int, on bool) {
	c.mu.Lock()
	c.ports[port].attached = on
	c.ports[port].tell[eventPortOpen] = true
	c.mu.Unlock()
	c.in.Wake()
}

func (c *control) resize(columns, rows uint16) {
	c.mu.Lock()
	c.columns, c.rows = columns, rows
	c.ports[0].tell[eventResize] = true
	c.mu.Unlock()
	c.in.Wake()
}

// receive heeds a message of the guest. What makes no sense is left alone.
func (c *control) receive(chain *virtio.Chain) (uint32, error) {
	var m [messageSize]byte
	if chain.CopyOut(m[:], 0) < messageSize {
		return 0, nil
	}
	id, event, value := binary.LittleEndian.Uint32(m[:]), binary.LittleEndian.Uint16(m[4:]), binary.LittleEndian.Uint16(m[6:])
	if event == eventDeviceReady {
		if value == 1 {
			c.tellAll(eventPortAdd)
		}
		return 0, nil
	}
	if int64(id) >= int64(len(c.ports)) {
		return 0, nil
	}
	switch {
	case event == eventPortReady && value == 1:
		c.introduce(int(id))
	case event == eventPortOpen:
		c.opened(int(id), value == 1)
	}
	return 0, nil
}

func (c *control) tellAll(event uint16) {
	c.mu.Lock()
	for i := range c.ports {
		c.ports[i].tell[event] = true
	}
	c.mu.Unlock()
	c.in.Wake()
}

// introduce tells all about a port that the guest has made.
func (c *control) introduce(id int) {
	c.mu.Lock()
	p := &c.ports[id]
	p.tell[eventPortOpen] = true
	if id == 0 {
		p.tell[eventConsolePort] = true
		p.tell[eventResize] = c.columns > 0
	} else {
		p.tell[eventPortName] = true
	}
	c.mu.Unlock()
	c.in.Wake()
}

func (c *control) pending() bool {
	c.mu.Lock()
	defer c.mu.Unlock()
	_, _, ok := c.next()
	return ok
}

// next finds what to tell; the lock is held.
func (c *control) next() (id int, event uint16, ok bool) {
	for id := range c.ports {
		for _, event := range order {
			if c.ports[id].tell[event] {
				return id, event, true
			}
		}
	}
	return 0, 0, false
}

// send tells the guest one thing.
func (c *control) send(chain *virtio.Chain) (uint32, error) {
	c.mu.Lock()
	defer c.mu.Unlock()
	id, event, ok := c.next()
	if !ok {
		return 0, nil
	}
	p := &c.ports[id]
	p.tell[event] = false
	value := uint16(1)
	if event == eventPortOpen && !p.attached {
		value = 0
	}
	m := binary.LittleEndian.AppendUint32(nil, uint32(id))
	m = binary.LittleEndian.AppendUint16(m, event)
	m = binary.LittleEndian.AppendUint16(m, value)
	switch event {
	case eventPortName:
		m = append(m, p.name...)
	case eventResize:
		// The order of the specification; Linux before 6.15 has them the other way round.
		m = binary.LittleEndian.AppendUint16(m, c.columns)
		m = binary.LittleEndian.AppendUint16(m, c.rows)
	}
	return uint32(chain.CopyIn(m)), nil
}
