package netboot

import (
	"bytes"
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"sync"
	"testing"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/iana"

	"quantavirt/netstack/mac"
)

// node is the MAC address of a machine.
func node(n byte) mac.Addr { return mac.Addr{0x52, 0x54, 0, 0x71, 0x76, n} }

const hash = "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef"

// rack is a configuration with a machine for each way to tell one.
const rack = `
default:
  cmdline: quantavirt.ntp=off
  config: {hostname: anybody}
machines:
  - name: node-1
    mac: 52:54:00:71:76:01
    config: {hostname: node-1, tokens: [{description: rack, hash: "` + hash + `"}]}
  - name: node-2
    mac: [52-54-00-71-76-02, "52:54:00:71:76:12"]
    serial: ABC 123
    cmdline: quantavirt.debug
    config: {hostname: node-2}
  - serial: XYZ-9
    config: {hostname: by-serial}
  - uuid: 00112233-4455-6677-8899-aabbccddeeff
    config: {hostname: by-uuid}
  - name: node-5
    mac: 52:54:00:71:76:05
`

func mustParse(t testing.TB, text string) *Set {
	t.Helper()
	set, err := Parse([]byte(text))
	if err != nil {
		t.Fatal(err)
	}
	return set
}

// syncBuffer is a log that a test may read while it is written.
type syncBuffer struct {
	mu sync.Mutex
	b  bytes.Buffer
}

func (s *syncBuffer) Write(p []byte) (int, error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.Write(p)
}

func (s *syncBuffer) String() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.b.String()
}

// files makes a directory with files whose content is their name.
func files(t testing.TB, names ...string) string {
	t.Helper()
	dir := t.TempDir()
	for _, n := range names {
		path := filepath.Join(dir, n)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte("content of "+n), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

var imageFiles = []string{fileKernel, "initramfs.zst", fileUKI, fileBIOS, "snponly.efi"}

// newBooter is a booter with an image and the configuration rack.
func newBooter(t testing.TB, change func(*booter)) *booter {
	t.Helper()
	tr, err := openTree(files(t, imageFiles...), "")
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(tr.close)
	st, err := openState(t.TempDir())
	if err != nil {
		t.Fatal(err)
	}
	b := &booter{log: slog.New(slog.NewTextHandler(t.Output(), nil)), address: netip.MustParseAddr("10.0.0.1"), port: 80, uefi: UEFIAuto,
		tree: tr, cmdline: "console=ttyS0 panic=10", machines: newMachines(), set: mustParse(t, rack), state: st}
	if change != nil {
		change(b)
	}
	return b
}

// ask makes a message of a machine.
func ask(t testing.TB, m mac.Addr, typ dhcpv4.MessageType, mods ...dhcpv4.Modifier) *dhcpv4.DHCPv4 {
	t.Helper()
	req, err := dhcpv4.New(append([]dhcpv4.Modifier{dhcpv4.WithHwAddr(m.HW()), dhcpv4.WithMessageType(typ)}, mods...)...)
	if err != nil {
		t.Fatal(err)
	}
	return req
}

func class(s string) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptClassIdentifier(s)) }

func arch(a iana.Arch) dhcpv4.Modifier { return dhcpv4.WithOption(dhcpv4.OptClientArch(a)) }

// firmware is how PXE firmware presents itself.
func firmware(a iana.Arch) []dhcpv4.Modifier {
	return []dhcpv4.Modifier{class("PXEClient:Arch:00000:UNDI:002001"), arch(a)}
}

func ipxe(a iana.Arch) []dhcpv4.Modifier {
	return append(firmware(a), dhcpv4.WithOption(dhcpv4.OptGeneric(dhcpv4.OptionUserClassInformation, []byte("iPXE"))))
}

func httpBoot(a iana.Arch) []dhcpv4.Modifier {
	return []dhcpv4.Modifier{class("HTTPClient:Arch:00016:UNDI:003001"), arch(a)}
}
