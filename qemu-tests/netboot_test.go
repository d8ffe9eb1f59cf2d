package qemutests

import (
	"context"
	"fmt"
	"os"
	"strings"
	"testing"
	"time"

	"quantavirt/qemu-tests/lab"
)

const (
	rackServer   = "10.71.0.1"
	rackSerial   = "LAB-0001"
	rackHostname = "rack-node-1"
	noPXE        = "name=opt/org.tianocore/IPv%dPXESupport,string=n" // takes PXE from OVMF
)

// noTimerCheck keeps a kernel from taking the emulated timer of a machine that
// has much to do for a broken one: it then panics and boots a second time.
const noTimerCheck = "no_timer_check"

// stubWords gives it to a unified kernel image, see systemd-stub(7).
const stubWords = "type=11,value=io.systemd.stub.kernel-cmdline-extra=" + noTimerCheck

var fullMode = []string{"--mode", "full", "--range", "10.71.0.100-10.71.0.150"}

// netbootCases are the ways to boot that firmware knows.
var netbootCases = []struct {
	name     string
	firmware string
	rom      bool
	server   []string // arguments
	soak     bool     // only then
	beside   bool     // another DHCP server
	extra    []string // for QEMU
	asked    []string // what the server saw, in this order
}{
	{"bios-pxe", lab.FirmwareBIOS, true, fullMode, true, false, nil,
		[]string{"DHCP DISCOVER of iPXE, Intel x86PC", "HTTP boot script", "HTTP /vmlinuz", "HTTP /initramfs.zst", "HTTP configuration"}},
	{"uefi-pxe", lab.FirmwareUEFI, false, fullMode, false, false, nil,
		[]string{"DHCP DISCOVER of PXE, EFI x86-64", "TFTP snponly.efi", "DHCP DISCOVER of iPXE, EFI x86-64", "HTTP boot script", "HTTP /vmlinuz", "HTTP configuration"}},
	{"uefi-pxe-proxy", lab.FirmwareUEFI, false, []string{"--uefi", "uki"}, true, true, nil,
		[]string{"DHCP DISCOVER of PXE, EFI x86-64", "DHCP REQUEST of PXE, EFI x86-64", "TFTP quantavirt.efi", "DHCP INFORM of QuantaVirt", "HTTP configuration"}},
	{"uefi-http", lab.FirmwareUEFI, false, fullMode, false, false, []string{"-fw_cfg", fmt.Sprintf(noPXE, 4), "-fw_cfg", fmt.Sprintf(noPXE, 6)},
		[]string{"DHCP DISCOVER of HTTP boot, EFI x86-64 boot from HTTP", "HTTP /quantavirt.efi", "DHCP INFORM of QuantaVirt", "HTTP configuration"}},
}

// A machine without a disk boots from quantavirt-netboot, by each way that
// firmware knows, and takes its configuration from there: told by the command line
// of the boot script, or, booted without one, because it asks.
func TestNetboot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root to make network namespaces")
	}
	config := fmt.Sprintf("machines:\n  - name: node-1\n    serial: %s\n    config: {hostname: %s, tokens: [{hash: %q}]}\n",
		rackSerial, rackHostname, tokenHash(installedToken))
	for _, c := range netbootCases {
		t.Run(c.name, func(t *testing.T) {
			if c.soak && !soaking() {
				t.Skip("only under make soak")
			}
			r := &rack{args: c.server, config: config, beside: c.beside}
			n := boot(t, lab.Options{
				Name: c.name, Firmware: c.firmware, FirstToken: true, Memory: 3072, Netboot: &lab.Netboot{ROM: c.rom, Serve: r.serve(t)},
				Extra: append(c.extra, "-smbios", "type=1,serial="+rackSerial, "-smbios", stubWords),
			})
			waitHostname(t, n, rackHostname)
			n.Token = installedToken
			got := configured(t, n)
			if got.Hostname != rackHostname || got.Configuration.Source != "url" || len(got.Configuration.Problems) > 0 {
				t.Errorf("%+v", got)
			}
			if l := slotsOf(t, n); l.Medium != "pxe" || !strings.Contains(l.Message, "netboot server") {
				t.Errorf("the node has booted from the network, it says %+v", l)
			}
			if !strings.HasPrefix(n.URL, "https://10.71.0.1") {
				t.Errorf("the API is at %s", n.URL)
			}
			runVM(t, n)
			seen := r.asked(t, n)
			for _, want := range c.asked {
				i := 0
				for i < len(seen) && !strings.HasPrefix(seen[i], want) {
					i++
				}
				if i == len(seen) {
					t.Fatalf("%q is missing, or at another place", want)
				}
				seen = seen[i+1:]
			}
		})
	}
}

// waitHostname waits for the banner, which comes again with the name that a
// configuration gives.
func waitHostname(t *testing.T, n *lab.Node, name string) {
	t.Helper()
	ctx, cancel := context.WithTimeout(t.Context(), time.Minute)
	defer cancel()
	if _, err := n.WaitLine(ctx, " on "+name); err != nil {
		t.Fatal(err)
	}
}
