package qemutests

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/qemu-tests/lab"
)

// A node that was booted from the network is updated by starting the new kernel
// directly: the firmware has no part in it, its VM runs again, and the node says
// that the netboot server decides at the next cold boot.
func TestKexecUpdate(t *testing.T) {
	if !soaking() {
		t.Skip("only under make soak; TestNetboot boots a node so")
	}
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	r := &rack{args: fullMode, config: fmt.Sprintf("machines:\n  - serial: %s\n    config: {hostname: %s, tokens: [{hash: %q}]}\n",
		rackSerial, rackHostname, tokenHash(installedToken))}
	n := boot(t, lab.Options{
		Name: "kexec", Firmware: lab.FirmwareBIOS, FirstToken: true, Memory: 3072, DataDisk: 1024,
		Netboot: &lab.Netboot{ROM: true, Serve: r.serve(t)}, Extra: []string{"-smbios", "type=1,serial=" + rackSerial},
	})
	n.Token = installedToken
	waitHostname(t, n, rackHostname)
	directUpdate(t, n, "updated")
	l := slotsOf(t, n)
	if l.Medium != "pxe" || l.LastBundle.Version != "9.1" || !strings.Contains(l.Message, "netboot server decides") {
		t.Errorf("%+v", l)
	}
	a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/logs?subsystem=update&grep=netboot", nil)
	if err != nil || !strings.Contains(string(a.Body), "at the next cold boot the netboot server decides again") {
		t.Errorf("the log: %s, %v", a.Body, err)
	}
}

// On an installed node the system that was started directly is tried and blessed
// like any other, and is what the firmware boots from then on.
func TestKexecSlots(t *testing.T) {
	if rounds(0, 1) == 0 {
		t.Skip("only under make soak")
	}
	for _, firmware := range []string{lab.FirmwareUEFI, lab.FirmwareBIOS} {
		t.Run(firmware, func(t *testing.T) {
			n := installed(t, firmware, twoDisks)
			directUpdate(t, n.Node, "updated")
			n.runs(t, "9.1", "RUNNING")
			mark := n.ConsoleMark()
			if err := n.Call(t.Context(), http.MethodPost, "/api/v1/system/reboot", nil, nil); err != nil {
				t.Fatal(err)
			}
			again(t, n.Node, mark)
			if s := slotState(t, n.Node, "9.1", spec.SlotStateGood); !s.Running {
				t.Errorf("after a reboot through the firmware: %+v", s)
			}
		})
	}
}

// directUpdate updates a node under a VM with --kexec. hostname is what the new
// system calls the node.
func directUpdate(t *testing.T, n *lab.Node, hostname string) {
	t.Helper()
	defineVM(t, n, "kept", nil)
	act(t, n, "kept", "start")
	ready(t, attach(t, n, "kept"))
	data, before := bundleOf(t, "9.1", 2, "quantavirt.hostname="+hostname), bootOf(t, n)
	begin, mark := time.Now(), n.ConsoleMark()
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/system/update?kexec=true&good=3&limit=240", io.Reader(bytes.NewReader(data)), nil); err != nil {
		t.Fatal(err)
	}
	t.Logf("%.1f s: the bundle is received and verified", time.Since(begin).Seconds())
	again(t, n, mark)
	t.Logf("%.1f s: the API is back", time.Since(begin).Seconds())
	console, err := os.ReadFile(n.ConsoleLog)
	if err != nil {
		t.Fatal(err)
	}
	for _, firmware := range []string{"SeaBIOS", "iPXE", "BdsDxe", "GRUB"} {
		if strings.Contains(string(console[mark:]), firmware) {
			t.Errorf("%s had a part in it", firmware)
		}
	}
	if bootOf(t, n) == before {
		t.Error("the same kernel still runs")
	}
	waitHostname(t, n, hostname)
	waitState(t, n, "kept", "RUNNING", 60*time.Second)
	t.Logf("%.1f s: the VM runs", time.Since(begin).Seconds())
}

func bootOf(t *testing.T, n *lab.Node) string {
	t.Helper()
	var info struct {
		BootID string `json:"boot_id"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/info", nil, &info); err != nil {
		t.Fatal(err)
	}
	return info.BootID
}
