package netboot

import (
	"log/slog"
	"net/netip"
	"os"
	"path/filepath"
	"regexp"
	"strings"
	"time"

	"quantavirt/internal/qverr"
)

// Mode says who gives addresses.
type Mode string

// Modes of DHCP.
const (
	Proxy Mode = "proxy" // another server does; we only tell what to boot
	Full  Mode = "full"  // we do
)

// DefaultCmdline is the kernel's command line of every medium.
const DefaultCmdline = "console=tty0 console=ttyS0 quiet panic=10 intel_iommu=on"

// Options of a Server.
type Options struct {
	Interface string
	Address   netip.Addr // of the server; zero: the interface's first IPv4 address
	Mode      Mode
	HTTPPort  uint16 // 0: 80

	First, Last netip.Addr    // full mode: the addresses to give
	Router      netip.Addr    // full mode: the machines' default route; may be invalid
	DNS         []netip.Addr  // full mode
	LeaseTime   time.Duration // full mode; 0: an hour

	Tree    string // directory with vmlinuz, initramfs.zst and, if there is one, quantavirt.efi
	IPXE    string // directory with iPXE's programs, looked at after Tree; may be missing
	Updates string // directory with update bundles; may be empty
	Config  string // file or directory for Load; may be empty
	State   string // directory for what survives a restart; "": DefaultState

	UEFI      UEFI   // "": UEFIAuto
	Cmdline   string // "": DefaultCmdline
	TokenHash string // sha256:HEX, for every machine that boots with a command line of ours; may be empty
	Once      bool   // boot a machine until it has fetched its configuration once, then no more
	KnownOnly bool   // serve only machines of the configuration
	Admins    []netip.Prefix

	Log *slog.Logger
}

var tokenHash = regexp.MustCompile(`^sha256:[0-9a-f]{64}$`)

// complete fills in defaults and refuses what cannot be served.
func (o *Options) complete() error {
	if o.HTTPPort == 0 {
		o.HTTPPort = 80
	}
	if o.UEFI == "" {
		o.UEFI = UEFIAuto
	}
	if o.Cmdline == "" {
		o.Cmdline = DefaultCmdline
	}
	if o.State == "" {
		o.State = DefaultState()
	}
	if err := checkWords(o.Cmdline); err != nil {
		return qverr.New(qverr.Inval, "%w", err)
	}
	switch {
	case o.Interface == "":
		return qverr.New(qverr.Inval, "no interface to serve on").WithHint("name it with --interface")
	case o.Tree == "":
		return qverr.New(qverr.Inval, "no image to boot").WithHint("name its directory with --tree, such as build/image/virtual")
	case o.Mode != Proxy && o.Mode != Full:
		return qverr.New(qverr.Inval, "mode %q: want proxy or full", o.Mode)
	case o.UEFI != UEFIAuto && o.UEFI != UEFIIPXE && o.UEFI != UEFIUKI:
		return qverr.New(qverr.Inval, "UEFI %q: want auto, ipxe or uki", o.UEFI)
	case o.TokenHash != "" && !tokenHash.MatchString(o.TokenHash):
		return qverr.New(qverr.Inval, "token hash %q: want sha256: and 64 hexadecimal digits", o.TokenHash)
	case o.Once && o.Config == "":
		return qverr.New(qverr.Inval, "--once counts configurations that are fetched, and there is none").WithHint("name it with --config")
	case o.KnownOnly && o.Config == "":
		return qverr.New(qverr.Inval, "--known-only serves the machines of a configuration, and there is none").WithHint("name it with --config")
	}
	return o.checkPool()
}

func (o *Options) checkPool() error {
	if o.Mode == Full {
		if !o.First.IsValid() || !o.Last.IsValid() {
			return qverr.New(qverr.Inval, "full mode gives addresses and has none").WithHint("name them with --range FIRST-LAST")
		}
		return nil
	}
	if o.First.IsValid() || o.Last.IsValid() || o.Router.IsValid() || len(o.DNS) > 0 {
		return qverr.New(qverr.Inval, "--range, --router and --dns are for full mode: in proxy mode another server gives addresses")
	}
	return nil
}

// words are the kernel's words for every machine.
func (o *Options) words() string {
	words := strings.TrimSpace(o.Cmdline)
	if o.TokenHash != "" {
		words += " quantavirt.token-hash=" + o.TokenHash
	}
	return words
}

// DefaultState is the directory that systemd made for the service
// ($STATE_DIRECTORY), else quantavirt-netboot under $XDG_STATE_HOME or
// ~/.local/state.
func DefaultState() string {
	const name = "quantavirt-netboot"
	if dir := os.Getenv("STATE_DIRECTORY"); dir != "" {
		return dir
	}
	if dir := os.Getenv("XDG_STATE_HOME"); dir != "" {
		return filepath.Join(dir, name)
	}
	home, err := os.UserHomeDir()
	if err != nil {
		return filepath.Join(os.TempDir(), name)
	}
	return filepath.Join(home, ".local", "state", name)
}
