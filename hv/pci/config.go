package pci

// readConfig and writeConfig run under Bus.mu; the access lies in the header.
func (d *Device) readConfig(off int, data []byte) {
	copy(data, d.config[off:])
	for _, c := range d.caps {
		if c.handler == nil {
			continue
		}
		if lo, hi := max(off, c.off), min(off+len(data), c.off+c.size); lo < hi {
			c.handler.ReadConfig(lo-c.off, data[lo-off:hi-off])
		}
	}
}

// writeConfig reports whether the decoding of BARs may have changed.
func (d *Device) writeConfig(off int, data []byte) (moved bool) {
	for i, v := range data {
		at := off + i
		d.config[at] = (d.config[at]&^d.mask[at] | v&d.mask[at]) &^ (v & d.clear[at])
		moved = moved || at == regCommand || at >= regBAR0 && at < regBAR0+4*barCount && d.mask[at] != 0
	}
	for _, c := range d.caps {
		if c.handler == nil {
			continue
		}
		if lo, hi := max(off, c.off), min(off+len(data), c.off+c.size); lo < hi {
			c.handler.WriteConfig(lo-c.off, data[lo-off:hi-off])
		}
	}
	return moved
}
