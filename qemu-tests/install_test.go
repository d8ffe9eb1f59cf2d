package qemutests

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/image"
	"quantavirt/image/media"
	"quantavirt/qemu-tests/lab"
)

// installedToken is trusted by the configuration that goes with the
// installation.
const installedToken = "qv_installed-AAAAAAAAAAAAAAAAAAAAAAAAAAAAAA"

// blankDisk makes a disk of a size in MiB that takes no space.
func blankDisk(t *testing.T, mib int64) string {
	t.Helper()
	path := filepath.Join(t.TempDir(), "target.img")
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(mib << 20); err != nil {
		t.Fatal(err)
	}
	if err := f.Close(); err != nil {
		t.Fatal(err)
	}
	return path
}

// targetArgs attach a disk as a bus does, behind all others in the boot order.
func targetArgs(bus, file string) []string { return targetAt(bus, file, lab.BootIndex+1) }

// targetAt attaches it at a place in the boot order.
func targetAt(bus, file string, bootIndex int) []string {
	device := map[string]string{
		lab.MediumNVMe: "nvme,serial=TARGET", lab.MediumVirtio: "virtio-blk-pci,serial=TARGET", lab.MediumSATA: "ide-hd,bus=ide.1,serial=TARGET",
	}[bus]
	return []string{"-drive", "if=none,id=target,format=raw,discard=unmap,file=" + file, "-device", fmt.Sprintf("%s,drive=target,bootindex=%d", device, bootIndex)}
}

// configurationArgs give a configuration through fw_cfg.
func configurationArgs(t *testing.T, doc map[string]any) []string {
	t.Helper()
	data, err := json.Marshal(doc)
	if err != nil {
		t.Fatal(err)
	}
	path := filepath.Join(t.TempDir(), "quantavirt.json")
	if err := os.WriteFile(path, data, 0o644); err != nil {
		t.Fatal(err)
	}
	return []string{"-fw_cfg", "name=opt/org.quantavirt/config,file=" + path}
}

func tokenHash(token string) string {
	sum := sha256.Sum256([]byte(token))
	return "sha256:" + hex.EncodeToString(sum[:])
}

// A blank disk is installed from an uploaded system or bundle, or from the stick or disc
// that the node was booted from, and boots by both firmwares; what the node keeps is there
// after each.
func TestInstall(t *testing.T) {
	cases := []struct {
		name, build, bus string
		from             lab.Medium // none: the system is uploaded
		bundle           bool       // in a bundle
	}{
		{"nvme", "virtual", lab.MediumNVMe, lab.Medium{}, false},
		{"virtio", "virtual", lab.MediumVirtio, lab.Medium{}, true},
		{"sata", "hardware", lab.MediumSATA, lab.Medium{}, false},
		{"from a stick", "hardware", lab.MediumSATA, lab.Medium{File: media.DiskFile, As: lab.MediumUSB}, false},
		{"from a disc", "hardware", lab.MediumNVMe, lab.Medium{File: media.ISOFile, As: lab.MediumCDROM}, false},
	}
	for _, c := range cases[:rounds(1, len(cases))] {
		t.Run(c.name, func(t *testing.T) {
			uki := filepath.Join(shared.root, "build", "image", c.build, image.UKIFile)
			if _, err := os.Stat(uki); err != nil {
				t.Fatalf("%v: make image BUILD=%s makes it", err, c.build)
			}
			o := lab.Options{Build: c.build, Memory: 1536}
			if c.bundle {
				uki = filepath.Join(t.TempDir(), "system.qvu")
				place(t, uki, bundleOf(t, "9.1", 2, ""))
			}
			if c.from.File != "" {
				o.Firmware, o.Medium, uki = lab.FirmwareUEFI, c.from, ""
				o.Medium.File = medium(t, c.build, c.from.File)
			}
			disk := blankDisk(t, 4096)
			name := "install-" + c.bus
			config := configurationArgs(t, map[string]any{"hostname": "installed", "typo": 1, "tokens": []any{map[string]any{"hash": tokenHash(installedToken)}}})
			o.Name, o.Extra = name, append(config, targetArgs(c.bus, disk)...)
			n := boot(t, o)
			n.Token = installedToken
			if c := configured(t, n); c.Hostname != "installed" || c.Configuration.Source != "fw_cfg" || !c.onlyTypo() {
				t.Errorf("before the installation: %+v", c)
			}
			installOn(t, n, uki)
			if err := n.Down(); err != nil {
				t.Fatal(err)
			}
			firmwares := []string{lab.FirmwareUEFI, lab.FirmwareBIOS}
			firmwares = firmwares[:rounds(1, 2)] // TestUnattendedInstall boots an installed disk by BIOS
			for i, firmware := range firmwares {
				n := boot(t, lab.Options{Name: name, Build: c.build, Firmware: firmware, Medium: lab.Medium{File: disk, As: c.bus, Keep: true}})
				n.Token = installedToken
				checkInstalled(t, n, i > 0)
				if l := slotsOf(t, n); c.bundle && (len(l.Items) != 1 || l.Items[0].Version != "9.1" || l.Items[0].Counter != 2) {
					t.Errorf("slots: %+v", l)
				}
				if i == len(firmwares)-1 {
					runVM(t, n)
				}
				if err := n.Down(); err != nil {
					t.Fatal(err)
				}
			}
		})
	}
}

// configuration is what a node says about its configuration.
type configuration struct {
	Hostname      string `json:"hostname"`
	Configuration struct {
		Source   string `json:"source"`
		Problems []struct {
			Message string `json:"message"`
		} `json:"problems"`
	} `json:"configuration"`
}

// onlyTypo says that nothing is wrong with it but a key that nobody knows.
func (c configuration) onlyTypo() bool {
	return len(c.Configuration.Problems) == 1 && strings.HasPrefix(c.Configuration.Problems[0].Message, "typo ")
}

func configured(t *testing.T, n *lab.Node) (c configuration) {
	t.Helper()
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// installOn looks at the disks, is refused what it must be, and installs: a file,
// or from the boot medium if uki is "".
func installOn(t *testing.T, n *lab.Node, uki string) {
	t.Helper()
	out, stderr, exit := cli(t, n, "system", "disks")
	if exit != 0 || !strings.Contains(out, "TARGET") || !strings.Contains(out, "free") {
		t.Fatalf("exit %d: %s%s", exit, out, stderr)
	}
	t.Log("\n" + out)
	install := []string{"system", "install", "--disk", "serial:TARGET", "--yes"}
	if uki != "" {
		if _, stderr, exit := cli(t, n, install...); exit == 0 || !strings.Contains(stderr, "QV_ERR_NOENT") {
			t.Errorf("without a system: exit %d: %s", exit, stderr)
		}
		install = append(install, "--file", uki)
	}
	out, stderr, exit = cli(t, n, install...)
	if exit != 0 {
		t.Fatalf("exit %d: %s%s", exit, out, stderr)
	}
	t.Log("\n" + stderr + out)
	if _, stderr, exit := cli(t, n, install...); exit == 0 ||
		!strings.Contains(stderr, "QV_ERR_EXIST") || !strings.Contains(stderr, "--wipe-serial TARGET") {
		t.Errorf("once more: exit %d: %s", exit, stderr)
	}
	out, _, _ = cli(t, n, "system", "disks")
	t.Log("\n" + out)
	for _, want := range []string{"QV-BIOS", "QV-ESP", "QV-DATA", "ours"} {
		if !strings.Contains(out, want) {
			t.Errorf("%s is missing", want)
		}
	}
}

// checkInstalled checks a node that runs from its disk: the configuration that
// lay beside the system, and what an earlier boot kept.
func checkInstalled(t *testing.T, n *lab.Node, again bool) {
	t.Helper()
	s := info(t, n)
	if !s.DataVolume.Persistent {
		t.Errorf("data volume: %+v", s.DataVolume)
	}
	if c := configured(t, n); c.Hostname != "installed" || c.Configuration.Source != "medium" || !c.onlyTypo() {
		t.Errorf("after the installation: %+v", c)
	}
	if !again {
		if err := n.Call(t.Context(), http.MethodPost, "/api/v1/disks", map[string]any{"name": "kept", "size": "1M"}, nil); err != nil {
			t.Fatal(err)
		}
		// In order, so that the data volume is clean.
		mark := n.ConsoleMark()
		if err := n.Call(t.Context(), http.MethodPost, "/api/v1/system/reboot", nil, nil); err != nil {
			t.Fatal(err)
		}
		if err := n.WaitReadyAfter(t.Context(), mark); err != nil {
			t.Fatal(err)
		}
	}
	a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/disks/kept", nil)
	if err != nil || a.Status != http.StatusOK {
		t.Errorf("what was made before: %d %v", a.Status, err)
	}
}
