package machine

import (
	"bytes"
	"os"
	"path/filepath"
	"testing"

	"quantavirt/hv/block"
	"quantavirt/hv/pci"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/blk"
)

// bootSector prints "MBR" on COM1 and powers off.
func bootSector() []byte {
	b := make([]byte, 512)
	copy(b, "\xba\xf8\x03\xb0M\xee\xb0B\xee\xb0R\xee\xba\x04\x06\xb8\x00\x34\xef\xf4")
	b[510], b[511] = 0x55, 0xaa
	return b
}

// A BAR that does not fit below 4 GiB makes SeaBIOS put all 64-bit BARs above it, where
// it reaches the disk's registers through configuration space alone.
func TestSeabiosHighBARs(t *testing.T) {
	dir := os.Getenv("QUANTAVIRT_NESTED")
	if dir == "" {
		t.Skip("QUANTAVIRT_NESTED names no directory with bios-256k.bin")
	}
	image, err := os.Open(filepath.Join(dir, "bios-256k.bin"))
	if err != nil {
		t.Fatal(err)
	}
	defer image.Close()
	var out output
	m, err := New(Options{CPUs: 1, Memory: 64 << 20, KVM: realKVM(t), Firmware: &Firmware{Image: image}, Serial: &out})
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(m.Close)
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, append(bootSector(), make([]byte, 1<<20)...), 0o600); err != nil {
		t.Fatal(err)
	}
	file, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := block.OpenRaw(file, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	dev, err := blk.New(raw, blk.Options{Queues: 1, Log: func(err error) { t.Error(err) }})
	if err != nil {
		t.Fatal(err)
	}
	disk, err := virtio.NewTransport("disk", dev, virtio.ClassStorage, m.Memory(), func(err error) { t.Error(err) })
	if err != nil {
		t.Fatal(err)
	}
	defer disk.Close()
	large := pci.NewDevice("large", pci.Identity{Vendor: 0x1b36, Device: 0x0005, Class: 0xff0000})
	if err := large.AddBAR(0, pci.BAR{Size: 8 << 30, Is64: true, Prefetch: true}); err != nil {
		t.Fatal(err)
	}
	for _, d := range []*pci.Device{disk.PCI(), large} {
		if err := m.Bus().Add(-1, d); err != nil {
			t.Fatal(err)
		}
	}
	if err := m.SetBootOrder([]*pci.Device{disk.PCI()}); err != nil {
		t.Fatal(err)
	}
	start(t, m)
	wait(t, m, PoweredOff)
	if !bytes.HasSuffix([]byte(out.String()), []byte("MBR")) {
		t.Errorf("%q", out.String())
	}
	var bar [8]byte
	disk.PCI().ConfigBytes(0x10, bar[:])
	if bar[4] == 0 && bar[5] == 0 {
		t.Errorf("the disk's BAR is below 4 GiB: % x", bar)
	}
}
