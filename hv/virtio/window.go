package virtio

import (
	"encoding/binary"

	"quantavirt/hv/pci"
)

// Offsets in the PCI_CFG capability, section 4.1.4.9.
const (
	windowBAR    = 4
	windowOffset = 8
	windowLength = 12
	windowData   = 16
	windowSize   = 20
)

// window is the PCI_CFG capability: access to the BAR through configuration
// space. SeaBIOS has no other way to a BAR above 4 GiB.
type window struct{ t *Transport }

func (t *Transport) addWindow() error {
	body := append(capBody(capPCI, 0, 0, 0, 4), 0, 0, 0, 0)
	mask := make([]byte, len(body))
	mask[windowBAR-2] = 0xff
	for i := windowOffset - 2; i < windowSize-2; i++ {
		mask[i] = 0xff
	}
	off, err := t.pci.AddCapability(pci.CapVendor, body, mask, window{t})
	t.capConfigData = off
	return err
}

// target is where the driver points the window; ok is false when it points
// nowhere that exists.
func (w window) target() (off uint64, length int, ok bool) {
	var c [windowSize]byte
	w.t.pci.ConfigBytes(w.t.capConfigData, c[:])
	off = uint64(binary.LittleEndian.Uint32(c[windowOffset:]))
	n := binary.LittleEndian.Uint32(c[windowLength:])
	ok = c[windowBAR] == registerBAR && (n == 1 || n == 2 || n == 4) && off%uint64(n) == 0
	return off, int(n), ok
}

// ReadConfig implements pci.ConfigHandler.
func (w window) ReadConfig(off int, data []byte) {
	target, n, ok := w.target()
	if off != windowData || !ok {
		return
	}
	var buf [4]byte
	w.t.pci.ReadBAR(registerBAR, target, buf[:n])
	copy(data, buf[:])
}

// WriteConfig implements pci.ConfigHandler.
func (w window) WriteConfig(off int, data []byte) {
	target, n, ok := w.target()
	if off != windowData || !ok || len(data) < n {
		return
	}
	w.t.pci.WriteBAR(registerBAR, target, data[:n])
}
