package vmm_test

import (
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/hv/block"
	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
)

// The tests of guests that SeaBIOS starts need more than the others: bios-256k.bin
// and pxe-virtio.rom in the directory, and disks with known serial numbers.

// newFirmwareSpec makes the files of a VM that boots from the disk with a serial
// number, or from none.
func newFirmwareSpec(t *testing.T, name, serial string) *guest {
	t.Helper()
	dir, work := rig(t), t.TempDir()
	g := &guest{t: t, rings: map[string]string{}}
	files := map[string]*os.File{"firmware": open(t, filepath.Join(dir, "bios-256k.bin"), os.O_RDONLY)}
	for _, c := range []string{vmm.ConsoleSerial, vmm.ConsoleVirtio} {
		g.rings[c] = filepath.Join(work, c)
		f, err := ring.Create(g.rings[c], ring.DefaultSize)
		if err != nil {
			t.Fatal(err)
		}
		files[c] = f
	}
	m := config.Machine{UUID: "8d1f0000-0000-4000-8000-000000000002", CPUs: guestCPUs, Memory: firmwareMemory,
		Boot: config.Boot{Firmware: "firmware"}, ConsoleLog: vmm.ConsoleVirtio, SerialLog: vmm.ConsoleSerial}
	if serial != "" {
		disk := open(t, diskBySerial(t, serial), os.O_RDWR)
		if err := block.Lock(disk, true); err != nil {
			t.Fatal(err)
		}
		files["disk"] = disk
		m.Disks = []config.Disk{{ID: "disk0", File: "disk", Format: "raw"}}
		m.Boot.Order = []string{"disk0"}
	}
	g.spec = vmm.Spec{Binary: filepath.Join(dir, "hv"), Name: name, Files: files, RunDir: work, Log: os.Stderr,
		UID: guestUID, GID: guestUID, Cgroup: filepath.Join(cgroupRoot(t), name), Grace: 2 * time.Second, Machine: m}
	t.Cleanup(func() {
		for _, f := range g.spec.Files {
			f.Close()
		}
		if t.Failed() {
			t.Logf("serial:\n%s", g.seen.Bytes())
		}
	})
	return g
}

const (
	firmwareMemory = 256 << 20
	// firmwareTime bounds one stage of a start: a Debian takes half a minute on a
	// machine that has nothing else to do.
	firmwareTime = 4 * time.Minute
)

// diskBySerial finds a disk of this machine.
func diskBySerial(t *testing.T, serial string) string {
	t.Helper()
	list, err := filepath.Glob("/sys/block/*/serial")
	if err != nil {
		t.Fatal(err)
	}
	for _, file := range list {
		if text, err := os.ReadFile(file); err == nil && strings.TrimSpace(string(text)) == serial {
			return filepath.Join("/dev", filepath.Base(filepath.Dir(file)))
		}
	}
	t.Skipf("this machine has no disk with the serial number %s", serial)
	return ""
}

// boot starts the guest and attaches to its serial port.
func (g *guest) boot() {
	g.t.Helper()
	g.spawn()
	var err error
	if g.console, err = g.client.Console(g.t.Context(), vmm.ConsoleSerial); err != nil {
		g.t.Fatal(err)
	}
	g.t.Cleanup(func() { g.console.Close() })
}

// stages reads the console up to each text in turn and logs when it came.
func (g *guest) stages(texts ...string) {
	g.t.Helper()
	began := time.Now()
	for _, text := range texts {
		g.expect(text, firmwareTime)
		g.t.Logf("%q after %v", text, time.Since(began).Round(10*time.Millisecond))
	}
	s, err := g.client.Stats(g.t.Context())
	g.must(err)
	for i, v := range s.VCPUs {
		g.t.Logf("vCPU %d: %+v", i, v)
	}
}

// A Debian as the installer leaves it comes up to its login prompt. In the soak root logs
// in, and all services run.
func TestFirmwareDebian(t *testing.T) {
	g := newFirmwareSpec(t, "debian", "boot-debian")
	g.spec.Machine.Memory = 512 << 20
	g.boot()
	g.stages("SeaBIOS", "Booting from Hard Disk", "GRUB", "Loading Linux", "Loading initial ramdisk", "debian login: ")
	if !soaking() {
		return
	}
	for _, s := range []struct{ text, answer string }{
		{"root\n", "Password: "}, {"debian\n", "root@debian:~# "}, {"systemctl is-system-running --wait\n", "running\r\n"},
	} {
		_, err := io.WriteString(g.console, s.text)
		g.must(err)
		g.stages(s.answer)
	}
}

// Debian's ipxe.iso boots, with RAM above 4 GiB, and again after a reset. It shows its
// banner and its network device.
func TestFirmwareISO(t *testing.T) {
	if !soaking() {
		t.Skip("the same disk is booted over the API, and a firmware is reset in hv/machine (QV_SOAK)")
	}
	g := newFirmwareSpec(t, "iso", "boot-ipxe")
	g.spec.Machine.Memory = 5 << 30
	g.spec.Files["tap"] = makeTAP(t, "qvt-iso", 1)[0]
	g.spec.Machine.NICs = []config.NIC{{ID: "nic0", TAP: "tap", MAC: "02:51:56:00:00:77"}}
	g.boot()
	g.stages("SeaBIOS", "Booting from Hard Disk", "iPXE 1.21", "net0: 02:51:56:00:00:77")
	g.must(g.client.Reset(t.Context()))
	g.stages("SeaBIOS", "Booting from Hard Disk", "iPXE 1.21")
}

// Where nothing can be booted, the firmware says so and stays.
func TestFirmwareNoDisk(t *testing.T) {
	g := newFirmwareSpec(t, "nodisk", "")
	g.boot()
	g.stages("SeaBIOS", "No bootable device")
}
