package qemutests

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/image"
	"quantavirt/qemu-tests/lab"
)

func fileSum(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// A blank machine boots from quantavirt-netboot, as its firmware finds nothing
// on its disk, and installs itself without a keypress, with the configuration that
// the server has for its serial number. Switched on again, it boots from its disk
// and the VM of the configuration runs. Booted from the network once more, it
// leaves the disk alone.
func TestUnattendedInstall(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	for _, c := range []struct {
		name     string
		firmware string
		rom      bool
		then     string
		network  bool // comes before the disk: the server sends the machine on once it is installed
		soak     bool
	}{
		{"BIOS", lab.FirmwareBIOS, true, "poweroff", false, false},
		{"UEFI", lab.FirmwareUEFI, false, "reboot", false, true},
		{"BIOS network first", lab.FirmwareBIOS, true, "reboot", true, true},
	} {
		t.Run(c.name, func(t *testing.T) {
			if c.soak && rounds(0, 1) == 0 {
				t.Skip("only under make soak")
			}
			m := newBlank(t, c.then)
			// Each keeps its console.
			m.o.Name += "-" + strings.ToLower(strings.ReplaceAll(c.name, " ", "-"))
			m.o.Firmware, m.o.Netboot.ROM = c.firmware, c.rom
			if c.network {
				m.r.args = append(m.r.args, "--once")
			}
			m.install(t, c.network, c.then)
			n := m.start(t, c.network, false)
			m.check(t, n, strings.HasSuffix(slotsOf(t, n).Medium, "-disk"))
			runsConfigured(t, n)
			if c.network { // it has shown that it is left alone
				return
			}
			if err := n.Down(); err != nil {
				t.Fatal(err)
			}
			n = m.start(t, true, false)
			m.check(t, n, slotsOf(t, n).Medium == "pxe")
			waitState(t, n, "configured", "RUNNING", time.Minute)
			settled(t, n)
			for _, task := range tasksOf(t, n) {
				if task.Kind == "system.install" {
					t.Error("the node installed itself over an installed disk")
				}
			}
		})
	}
}

// blank is a machine with a blank disk, and the network that it boots from.
type blank struct {
	r    *rack
	o    lab.Options
	disk string
}

// newBlank makes one whose configuration installs it on its only disk.
func newBlank(t *testing.T, then string) *blank {
	t.Helper()
	guest, err := shared.small()
	if err != nil {
		t.Fatal(err)
	}
	updates := t.TempDir()
	fetched := func(id, kind, path string) map[string]any {
		data, err := os.ReadFile(path)
		if err != nil {
			t.Fatal(err)
		}
		place(t, filepath.Join(updates, id), data)
		return map[string]any{"id": id, "kind": kind, "url": "http://" + rackServer + "/updates/" + id, "sha256": fileSum(t, path)}
	}
	config, err := json.Marshal(map[string]any{"machines": []any{map[string]any{"serial": rackSerial, "config": map[string]any{
		"hostname": "rack7", "tokens": []any{map[string]any{"hash": tokenHash(installedToken)}},
		"install":  map[string]any{"disk": "smallest", "source": "http://" + rackServer + "/quantavirt.efi", "sha256": fileSum(t, imageFile(image.UKIFile)), "then": then},
		"networks": []any{map[string]any{"name": "lab", "subnet": "10.9.0.1/24"}},
		"images":   []any{fetched("linux", "kernel", guest.Kernel), fetched("agent", "initrd", guest.Initrd)},
		"vms": []any{map[string]any{
			"name": "configured", "memory": map[string]any{"size": "192M"}, "network": []any{map[string]any{"network": "lab"}},
			"boot":      map[string]any{"firmware": "direct", "kernel": "linux", "initrd": "agent", "cmdline": "console=hvc0 quiet panic=-1"},
			"autostart": map[string]any{"enabled": true},
		}},
	}}}})
	if err != nil {
		t.Fatal(err)
	}
	b := &blank{disk: blankDisk(t, 4096), r: &rack{args: fullMode, config: string(config), updates: updates, state: t.TempDir()}}
	b.o = lab.Options{Name: "unattended", Memory: 2048, FirstToken: true, Netboot: &lab.Netboot{Serve: b.r.serve(t)}}
	return b
}

// start switches the machine on. unready does not wait for its API.
func (b *blank) start(t *testing.T, networkFirst, unready bool) *lab.Node {
	t.Helper()
	o, at := b.o, 0
	if networkFirst {
		at = lab.BootIndex + 1
	}
	o.Extra = append(targetAt(lab.MediumVirtio, b.disk, at), "-smbios", "type=1,serial="+rackSerial, "-smbios", stubWords)
	o.NoWait = unready
	n := boot(t, o)
	n.Token = installedToken
	b.o.KeepData = true // the variables of the firmware
	return n
}

// install has the machine install itself, and ends with the power off.
func (b *blank) install(t *testing.T, networkFirst bool, then string) {
	t.Helper()
	n := b.start(t, networkFirst, true)
	if then == "poweroff" {
		waitExit(t, n, 3*time.Minute)
		t.Logf("%.1f s: installed and powered off", time.Since(n.Started).Seconds())
	} else {
		ctx, cancel := context.WithTimeout(t.Context(), 3*time.Minute)
		defer cancel()
		if _, err := n.WaitLine(ctx, "quantavirt: installed; then: reboot"); err != nil {
			t.Fatal(err)
		}
		again(t, n, n.ConsoleMark())
		t.Logf("%.1f s: installed, and up from the disk", time.Since(n.Started).Seconds())
		runsConfigured(t, n)
	}
	if err := n.Down(); err != nil {
		t.Fatal(err)
	}
}

// check wants the node to be what its configuration says; medium says that it was
// booted from what it should be.
func (b *blank) check(t *testing.T, n *lab.Node, medium bool) {
	t.Helper()
	if c := configured(t, n); c.Hostname != "rack7" || c.Configuration.Source != "medium" || len(c.Configuration.Problems) > 0 {
		t.Errorf("%+v", c)
	}
	if !medium {
		t.Errorf("booted from something else: %+v", slotsOf(t, n))
	}
}

// runsConfigured wants the VM of the configuration to run, on its network.
func runsConfigured(t *testing.T, n *lab.Node) {
	t.Helper()
	waitVM(t, n, "configured", 2*time.Minute)
	waitState(t, n, "configured", "RUNNING", time.Minute)
	console := attach(t, n, "configured")
	ready(t, console)
	if address := field(ask(t, console, "dhcp"), "address"); !strings.HasPrefix(address, "10.9.0.") {
		t.Errorf("the VM has the address %s", address)
	}
}

func tasksOf(t *testing.T, n *lab.Node) []spec.Task {
	t.Helper()
	var tasks struct {
		Items []spec.Task `json:"items"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/tasks", nil, &tasks); err != nil {
		t.Fatal(err)
	}
	return tasks.Items
}

// waitExit waits until a node has powered off.
func waitExit(t *testing.T, n *lab.Node, limit time.Duration) {
	t.Helper()
	end := time.After(limit)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for n.Running() {
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("%s has not powered off after %s", n.Name, limit)
		}
	}
}

// waitVM waits until there is a VM.
func waitVM(t *testing.T, n *lab.Node, name string, limit time.Duration) {
	t.Helper()
	end := time.After(limit)
	tick := time.NewTicker(300 * time.Millisecond)
	defer tick.Stop()
	for {
		if a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/vms/"+name, nil); err == nil && a.Status == http.StatusOK {
			return
		}
		select {
		case <-tick.C:
		case <-end:
			t.Fatalf("there is no VM %s after %s: %+v", name, limit, configured(t, n))
		}
	}
}
