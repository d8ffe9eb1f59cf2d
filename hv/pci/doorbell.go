package pci

import (
	"quantavirt/internal/qverr"
)

// AddDoorbell signals the eventfd fd when the guest writes size bytes (2, 4, 8;
// 0 for any size) at off in BAR index, without the BAR's handler being called.
// It follows the BAR when the guest moves it.
func (d *Device) AddDoorbell(index int, off uint64, size, fd int) error {
	if !d.inBAR(index, off, max(size, 1)) {
		return qverr.New(qverr.Inval, "%s: doorbell at %#x of BAR %d", d.name, off, index)
	}
	b := &doorbell{bar: index, off: off, size: size, fd: fd, at: noAddr}
	d.mu.Lock()
	defer d.mu.Unlock()
	d.doorbells = append(d.doorbells, b)
	return d.placeDoorbell(b)
}

// RemoveDoorbell undoes AddDoorbell; fd stays open.
func (d *Device) RemoveDoorbell(index int, off uint64, size, fd int) error {
	d.mu.Lock()
	defer d.mu.Unlock()
	for i, b := range d.doorbells {
		if b.bar == index && b.off == off && b.size == size && b.fd == fd {
			d.doorbells = append(d.doorbells[:i], d.doorbells[i+1:]...)
			return d.moveDoorbell(b, noAddr)
		}
	}
	return qverr.New(qverr.NoEnt, "%s: no doorbell at %#x of BAR %d", d.name, off, index)
}

// placeDoorbells moves all doorbells to where their BARs are now.
func (d *Device) placeDoorbells() error {
	d.mu.Lock()
	defer d.mu.Unlock()
	var first error
	for _, b := range d.doorbells {
		if err := d.placeDoorbell(b); err != nil && first == nil {
			first = err
		}
	}
	return first
}

func (d *Device) placeDoorbell(b *doorbell) error {
	at := noAddr
	if d.bus != nil {
		if base, ok := d.bus.visible(d, b.bar); ok {
			at = base + b.off
		}
	}
	return d.moveDoorbell(b, at)
}

func (d *Device) moveDoorbell(b *doorbell, at uint64) error {
	if b.at == at {
		return nil
	}
	if b.at != noAddr {
		if err := d.bus.host.DetachDoorbell(b.at, b.size, b.fd); err != nil {
			return err
		}
		b.at = noAddr
	}
	if at == noAddr {
		return nil
	}
	if err := d.bus.host.AttachDoorbell(at, b.size, b.fd); err != nil {
		return err
	}
	b.at = at
	return nil
}
