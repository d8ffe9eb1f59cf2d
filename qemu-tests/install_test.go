package qemutests

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"net"

	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/image"
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

// targetArgs attach a disk as a bus does.
func targetArgs(bus, file string) []string {
	device := map[string]string{
		lab.MediumNVMe: "nvme,serial=TARGET", lab.MediumVirtio: "virtio-blk-pci,serial=TARGET", lab.MediumSATA: "ide-hd,bus=ide.1,serial=TARGET",
	}[bus]
	return []string{"-drive", "if=none,id=target,format=raw,discard=unmap,file=" + file, "-device", device + ",drive=target"}
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

// A blank disk is installed from an uploaded system, and boots by both
// firmwares; what the node keeps is there after each.
func TestInstall(t *testing.T) {
	cases := []struct{ build, bus string }{
		{"virtual", lab.MediumNVMe}, {"virtual", lab.MediumVirtio}, {"hardware", lab.MediumSATA},
	}
	for _, c := range cases[:rounds(1, len(cases))] {
		t.Run(c.bus, func(t *testing.T) {
			uki := filepath.Join(shared.root, "build", "image", c.build, image.UKIFile)
			if _, err := os.Stat(uki); err != nil {
				t.Fatalf("%v: make image BUILD=%s makes it", err, c.build)
			}
			disk := blankDisk(t, 4096)
			name := "install-" + c.bus
			config := configurationArgs(t, map[string]any{"hostname": "installed", "tokens": []any{map[string]any{"hash": tokenHash(installedToken)}}})
			n := boot(t, lab.Options{Name: name, Build: c.build, Memory: 1536, Extra: append(config, targetArgs(c.bus, disk)...)})
			n.Token = installedToken
			if c := configured(t, n); c.Hostname != "installed" || c.Configuration.Source != "fw_cfg" {
				t.Errorf("before the installation: %+v", c)
			}
			installOn(t, n, uki)
			if err := n.Down(); err != nil {
				t.Fatal(err)
			}
			for i, firmware := range []string{lab.FirmwareUEFI, lab.FirmwareBIOS} {
				n := boot(t, lab.Options{Name: name, Build: c.build, Firmware: firmware, Medium: lab.Medium{File: disk, As: c.bus, Keep: true}})
				n.Token = installedToken
				checkInstalled(t, n, i > 0)
				if i > 0 {
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

func configured(t *testing.T, n *lab.Node) (c configuration) {
	t.Helper()
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &c); err != nil {
		t.Fatal(err)
	}
	return c
}

// installOn looks at the disks, is refused what it must be, and installs.
func installOn(t *testing.T, n *lab.Node, uki string) {
	t.Helper()
	out, stderr, exit := cli(t, n, "system", "disks")
	if exit != 0 || !strings.Contains(out, "TARGET") || !strings.Contains(out, "free") {
		t.Fatalf("exit %d: %s%s", exit, out, stderr)
	}
	t.Log("\n" + out)
	if _, stderr, exit := cli(t, n, "system", "install", "--disk", "serial:TARGET", "--yes"); exit == 0 || !strings.Contains(stderr, "QV_ERR_NOENT") {
		t.Errorf("without a system: exit %d: %s", exit, stderr)
	}
	out, stderr, exit = cli(t, n, "system", "install", "--disk", "serial:TARGET", "--file", uki, "--yes")
	if exit != 0 {
		t.Fatalf("exit %d: %s%s", exit, out, stderr)
	}
	t.Log("\n" + stderr + out)
	if _, stderr, exit := cli(t, n, "system", "install", "--disk", "serial:TARGET", "--file", uki, "--yes"); exit == 0 ||
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
	if c := configured(t, n); c.Hostname != "installed" || c.Configuration.Source != "medium" {
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

// serveFiles serves files to the node, whose user network shows this machine as
// 10.0.2.2.
func serveFiles(t *testing.T, files map[string]string) (base string) {
	t.Helper()
	l, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		t.Fatal(err)
	}
	srv := &http.Server{ReadHeaderTimeout: 10 * time.Second, Handler: http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		path, ok := files[strings.TrimPrefix(r.URL.Path, "/")]
		if !ok {
			http.NotFound(w, r)
			return
		}
		http.ServeFile(w, r, path)
	})}
	go func() { _ = srv.Serve(l) }()
	t.Cleanup(func() { _ = srv.Close() })
	return fmt.Sprintf("http://10.0.2.2:%d/", l.Addr().(*net.TCPAddr).Port)
}

func fileSum(t *testing.T, path string) string {
	t.Helper()
	data, err := os.ReadFile(path)
	if err != nil {
		t.Fatal(err)
	}
	sum := sha256.Sum256(data)
	return hex.EncodeToString(sum[:])
}

// A blank machine that is started from the network installs itself without a
// keypress, and after a cold boot from its disk the VM of its configuration
// runs. Started from the network again, it leaves the installed disk alone.
func TestUnattendedInstall(t *testing.T) {
	guest, err := shared.small()
	if err != nil {
		t.Fatal(err)
	}
	uki, config := imageFile(image.UKIFile), filepath.Join(t.TempDir(), "quantavirt.json")
	base := serveFiles(t, map[string]string{"quantavirt.efi": uki, "linux": guest.Kernel, "agent": guest.Initrd, "node.json": config})
	fetched := func(id, kind, path string) map[string]any {
		return map[string]any{"id": id, "kind": kind, "url": base + id, "sha256": fileSum(t, path)}
	}
	data, err := json.Marshal(map[string]any{
		"hostname": "rack7", "tokens": []any{map[string]any{"hash": tokenHash(installedToken)}}, "typo": 1,
		"install":  map[string]any{"disk": "smallest", "source": base + "quantavirt.efi", "sha256": fileSum(t, uki), "then": "poweroff"},
		"networks": []any{map[string]any{"name": "lab", "subnet": "10.9.0.1/24"}},
		"images":   []any{fetched("linux", "kernel", guest.Kernel), fetched("agent", "initrd", guest.Initrd)},
		"vms": []any{map[string]any{
			"name": "configured", "memory": map[string]any{"size": "192M"}, "network": []any{map[string]any{"network": "lab"}},
			"boot":      map[string]any{"firmware": "direct", "kernel": "linux", "initrd": "agent", "cmdline": "console=hvc0 quiet panic=-1"},
			"autostart": map[string]any{"enabled": true},
		}},
	})
	if err != nil {
		t.Fatal(err)
	}
	place(t, config, data)
	disk := blankDisk(t, 4096)
	fromNetwork := lab.Options{
		Name: "unattended", Memory: 1536, Cmdline: "quantavirt.config=" + base + "node.json", NoWait: true, Extra: targetArgs(lab.MediumVirtio, disk),
	}
	n := boot(t, fromNetwork)
	waitExit(t, n, 3*time.Minute)
	installed := lab.Options{Name: "unattended", Memory: 2048, Firmware: lab.FirmwareUEFI, Medium: lab.Medium{File: disk, As: lab.MediumVirtio, Keep: true}}
	n = boot(t, installed)
	n.Token = installedToken
	waitVM(t, n, "configured", 2*time.Minute)
	waitState(t, n, "configured", "RUNNING", time.Minute)
	console := attach(t, n, "configured")
	ready(t, console)
	if address := field(ask(t, console, "dhcp"), "address"); !strings.HasPrefix(address, "10.9.0.") {
		t.Errorf("the VM has the address %s", address)
	}
	c := configured(t, n)
	if c.Hostname != "rack7" || c.Configuration.Source != "medium" || len(c.Configuration.Problems) != 1 || !strings.HasPrefix(c.Configuration.Problems[0].Message, "typo ") {
		t.Errorf("%+v", c)
	}
	restoredElsewhere(t, n)
	if err := n.Down(); err != nil {
		t.Fatal(err)
	}

	fromNetwork.NoWait = false
	n = boot(t, fromNetwork)
	n.Token = installedToken
	if c := configured(t, n); c.Configuration.Source != "medium" {
		t.Errorf("with its data volume the node took another configuration: %+v", c)
	}
	settled(t, n)
	var tasks struct {
		Items []struct{ Kind string } `json:"items"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/tasks", nil, &tasks); err != nil {
		t.Fatal(err)
	}
	for _, task := range tasks.Items {
		if task.Kind == "system.install" {
			t.Error("the node installed itself over an installed disk")
		}
	}
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
