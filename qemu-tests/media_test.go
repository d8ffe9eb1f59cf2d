package qemutests

import (
	"bytes"
	"errors"
	"io"
	"io/fs"
	"net/http"
	"os"
	"path/filepath"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/image"
	"quantavirt/image/grub"
	"quantavirt/image/media"
	"quantavirt/image/tools"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/fat32"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
	"quantavirt/qemu-tests/lab"
)

// medium is a file of make media. Those of a build are not there before it.
func medium(t *testing.T, build, name string) string {
	t.Helper()
	path := filepath.Join(shared.root, "build", "image", build, name)
	if _, err := os.Stat(path); errors.Is(err, fs.ErrNotExist) {
		t.Fatalf("%s is not there: make media BUILD=%s makes it", path, build)
	}
	return path
}

// TestMediaBoot boots every medium by both firmwares, up to a running VM. The
// hardware build is what reads a stick or a disc; the virtual build has drivers
// for neither, but boots from one.
func TestMediaBoot(t *testing.T) {
	disk := map[string]string{lab.FirmwareBIOS: "bios-disk", lab.FirmwareUEFI: "uefi-disk"}
	disc := map[string]string{lab.FirmwareBIOS: "iso", lab.FirmwareUEFI: "iso"}
	unseen := map[string]string{lab.FirmwareBIOS: "direct", lab.FirmwareUEFI: "direct"}
	for _, c := range []struct {
		name, build, file, as string
		medium                map[string]string // as the node calls it
		soak                  bool
	}{
		{name: "usb", build: "hardware", file: media.DiskFile, as: lab.MediumUSB, medium: disk},
		{name: "iso", build: "hardware", file: media.ISOFile, as: lab.MediumCDROM, medium: disc},
		{name: "iso-on-usb", build: "hardware", file: media.ISOFile, as: lab.MediumUSB, medium: disk, soak: true},
		{name: "virtio", build: "virtual", file: media.DiskFile, as: lab.MediumVirtio, medium: disk, soak: true},
		{name: "virtual-iso", build: "virtual", file: media.ISOFile, as: lab.MediumCDROM, medium: unseen, soak: true},
	} {
		for _, firmware := range []string{lab.FirmwareBIOS, lab.FirmwareUEFI} {
			t.Run(c.name+" "+firmware, func(t *testing.T) {
				if c.soak && rounds(0, 1) == 0 {
					t.Skip("only under make soak")
				}
				n := boot(t, lab.Options{
					Name: "media-" + c.name, Build: c.build, Firmware: firmware, Memory: 3072,
					Medium: lab.Medium{File: medium(t, c.build, c.file), As: c.as},
				})
				checkBooted(t, n, c.medium[firmware])
				runVM(t, n)
			})
		}
	}
}

// checkBooted checks that the node runs with the command line of the media, and
// knows what it booted from: slot 1, if there are slots.
func checkBooted(t *testing.T, n *lab.Node, medium string) {
	t.Helper()
	var info struct {
		Kernel struct {
			Cmdline string `json:"cmdline"`
		} `json:"kernel"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	for _, word := range strings.Fields(image.Cmdline) {
		if !slices.Contains(strings.Fields(info.Kernel.Cmdline), word) {
			t.Errorf("the command line %q lacks %s", info.Kernel.Cmdline, word)
		}
	}
	var slots struct {
		Medium string `json:"medium"`
		Items  []struct {
			Slot    string `json:"slot"`
			Running bool   `json:"running"`
		} `json:"items"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/slots", nil, &slots); err != nil {
		t.Fatal(err)
	}
	if slots.Medium != medium {
		t.Errorf("the node has booted from %q, it says %q", medium, slots.Medium)
	}
	for _, s := range slots.Items {
		if s.Running != (s.Slot == slot.Digits(1)) {
			t.Errorf("slots: %+v", slots.Items)
		}
	}
	if strings.HasSuffix(medium, "-disk") && len(slots.Items) == 0 {
		t.Error("the node sees no slots")
	}
}

// A try is counted before it begins, and what cannot be loaded does not keep the
// slot before from booting. The try's kernel is broken here.
func TestGRUBTry(t *testing.T) {
	disk := filepath.Join(t.TempDir(), "disk.img")
	at := tryDisk(t, disk)
	n := boot(t, lab.Options{
		Name: "grub-try", Firmware: lab.FirmwareBIOS,
		Medium: lab.Medium{File: disk, As: lab.MediumVirtio, Keep: true},
	})
	checkBooted(t, n, "bios-disk")
	for _, line := range []string{"QuantaVirt: slot 00000002", "QuantaVirt: slot 00000001"} {
		if _, err := n.WaitLine(t.Context(), line); err != nil {
			t.Error(err)
		}
	}
	f, err := os.Open(disk)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	block := make([]byte, slot.EnvSize)
	if _, err := f.ReadAt(block, at); err != nil {
		t.Fatal(err)
	}
	env, err := slot.ParseEnv(block)
	if err != nil {
		t.Fatal(err)
	}
	if try, left := env.Try(); try != 2 || left != 1 || env.Default() != 1 {
		t.Errorf("after the try: %q", bytes.TrimRight(block, "#"))
	}
}

// tryDisk makes a disk with a good slot 1 and a slot 2 that has two tries left
// and a kernel that is none. It returns where GRUB's variables lie.
func tryDisk(t *testing.T, path string) (env int64) {
	t.Helper()
	root, err := tools.Ensure(t.Context(), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	code, err := grub.BIOS(t.Context(), root)
	if err != nil {
		t.Fatal(err)
	}
	good, err := os.ReadFile(imageFile(image.UKIFile))
	if err != nil {
		t.Fatal(err)
	}
	broken := petest.Image(512, petest.Section{Name: ukifile.Cmdline, Data: "quiet"},
		petest.Section{Name: ukifile.Initrd, Data: "none"}, petest.Section{Name: ukifile.Linux, Data: "no kernel"})
	var slots []disklayout.Slot
	for i, unified := range [][]byte{good, broken} {
		slots = append(slots, disklayout.Slot{
			Info: slot.Info{Sequence: uint32(i + 1), State: slot.StateGood}, UKI: bytes.NewReader(unified), Size: int64(len(unified)),
		})
	}
	files, err := disklayout.BootFiles([]byte("no UEFI here"), 1, slots...)
	if err != nil {
		t.Fatal(err)
	}
	var armed slot.Env
	armed.Bless(1)
	armed.Arm(2, false)
	armed.Set(slot.EnvTries, "2")
	block, err := armed.Encode()
	if err != nil {
		t.Fatal(err)
	}
	at := slices.IndexFunc(files, func(f fat32.File) bool { return f.Name == slot.EnvFile })
	files[at] = fat32.Bytes(slot.EnvFile, block)
	f, err := os.Create(path)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	const esp = 128 << 20
	d := disklayout.Disk{Size: disklayout.MinSize(esp), SectorSize: 512, ESP: esp, IDs: disklayout.RandomIDs()}
	if err := f.Truncate(d.Size); err != nil {
		t.Fatal(err)
	}
	extents, err := d.Format(f, code, disklayout.ESP{Serial: 1, Time: time.Now(), Files: files})
	if err != nil {
		t.Fatal(err)
	}
	return extents[at].Offset
}
