package vm

import (
	"os"
	"path/filepath"
	"slices"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func TestSeabiosDefaults(t *testing.T) {
	c, err := Parse(testSet(t), tree(t, `{"name":"web","memory":{"size":"128M"},"storage":[{"disk":"d"}]}`))
	if err != nil {
		t.Fatal(err)
	}
	if c.Boot.Firmware != spec.BootConfigFirmwareSeabios || c.Console != spec.VMConfigConsoleSerial {
		t.Errorf("firmware %s, console %s", c.Boot.Firmware, c.Console)
	}
}

func TestBootOrder(t *testing.T) {
	for _, c := range []struct {
		name, doc string
		want      []string
	}{
		{"nothing", ``, nil},
		{"all disks", `,"storage":[{"disk":"a"},{"disk":"b"}],"network":[{}]`, []string{"disk0", "disk1"}},
		{"numbered disks first", `,"storage":[{"disk":"a"},{"disk":"b","boot_order":2},{"disk":"c","boot_order":1},{"disk":"d"}]`,
			[]string{"disk2", "disk1", "disk0", "disk3"}},
		{"network first", `,"storage":[{"disk":"a"}],"network":[{},{}],"boot":{"order":["network","disk"]}`, []string{"nic0", "nic1", "disk0"}},
		{"network alone", `,"storage":[{"disk":"a"}],"network":[{}],"boot":{"order":["network"]}`, []string{"nic0"}},
	} {
		cfg, err := Parse(testSet(t), tree(t, `{"name":"web","memory":{"size":"128M"}`+c.doc+`}`))
		if err != nil {
			t.Fatalf("%s: %v", c.name, err)
		}
		if got := bootOrder(&cfg); !slices.Equal(got, c.want) {
			t.Errorf("%s: %v, want %v", c.name, got, c.want)
		}
	}
}

// A VM without a boot section gets SeaBIOS and its disks, and the option ROM only
// when it boots from a network.
func TestStartSeabios(t *testing.T) {
	r := newRig(t)
	r.create(`{"name":"web","memory":{"size":"128M"},"storage":[{"disk":"d1"}],"network":[{}]}`)
	if _, err := r.Start(t.Context(), "web", ""); qverr.CodeOf(err) != qverr.VMStart {
		t.Fatalf("a node without firmware: %v", err)
	}
	if err := os.MkdirAll(r.Firmware, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, name := range []string{seabiosFile, netROMFile} {
		if err := os.WriteFile(filepath.Join(r.Firmware, name), []byte(name), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	r.done(r.Start(t.Context(), "web", ""))
	boot, files := r.vmm.specs[0].Machine.Boot, r.vmm.specs[0].Files
	if boot.Firmware != fileFirmware || boot.NetROM != "" || boot.Kernel != "" || !slices.Equal(boot.Order, []string{"disk0"}) {
		t.Errorf("%+v", boot)
	}
	if files[fileFirmware] == nil || files[fileNetROM] != nil {
		t.Errorf("files %v", files)
	}
	r.create(`{"name":"diskless","memory":{"size":"128M"},"network":[{}],"boot":{"order":["network","disk"]}}`)
	r.done(r.Start(t.Context(), "diskless", ""))
	if boot := r.vmm.specs[1].Machine.Boot; boot.NetROM != fileNetROM || !slices.Equal(boot.Order, []string{"nic0"}) {
		t.Errorf("%+v", boot)
	}
}
