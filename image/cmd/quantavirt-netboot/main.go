// Command quantavirt-netboot boots machines from the network and hands each its
// configuration:
//
//	quantavirt-netboot --interface eth1 --mode full --range 10.0.0.100-10.0.0.200 --tree build/image/virtual --config rack.yaml
//
// It serves until SIGTERM or SIGINT and reads its configuration anew on SIGHUP
// and when the files change. docs/netboot.md is its manual.
package main

import (
	"context"
	"errors"
	"flag"
	"fmt"
	"io"
	"net/netip"
	"os"
	"os/signal"
	"strings"
	"syscall"

	"quantavirt/image/netboot"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
	"quantavirt/internal/version"
)

func main() {
	ctx, stop := signal.NotifyContext(context.Background(), syscall.SIGTERM, syscall.SIGINT)
	reload := make(chan os.Signal, 1)
	signal.Notify(reload, syscall.SIGHUP)
	err := run(ctx, os.Args[1:], reload, os.Stdout)
	stop()
	if err == nil || errors.Is(err, flag.ErrHelp) {
		return
	}
	fmt.Fprintln(os.Stderr, qverr.Line(err))
	os.Exit(qverr.ExitCode(err))
}

func run(ctx context.Context, args []string, reload <-chan os.Signal, stdout io.Writer) error {
	o, err := parse(args, stdout)
	if err != nil {
		return err
	}
	s, err := netboot.New(o)
	if err != nil {
		return err
	}
	return s.Run(ctx, reload)
}

// parse reads the command line. Errors carry QV_ERR_INVAL; flag.ErrHelp means
// that all is said.
func parse(args []string, stdout io.Writer) (netboot.Options, error) {
	var o netboot.Options
	f := flag.NewFlagSet("quantavirt-netboot", flag.ContinueOnError)
	f.SetOutput(io.Discard)
	f.StringVar(&o.Interface, "interface", "", "network `interface` to serve on (required)")
	f.TextVar(&o.Address, "address", netip.Addr{}, "`address` of the server (default: the interface's first)")
	f.Func("mode", "`MODE`: proxy (another server gives addresses; default) or full", func(s string) error { o.Mode = netboot.Mode(s); return nil })
	f.Func("range", "`FIRST-LAST`: the addresses to give in full mode", func(s string) error { return pool(s, &o) })
	f.TextVar(&o.Router, "router", netip.Addr{}, "`address` of the machines' router in full mode; the server's own is allowed (default: none)")
	f.Func("dns", "`address` of a name server in full mode; may be repeated", func(s string) error { return addTo(&o.DNS, s, netip.ParseAddr) })
	f.DurationVar(&o.LeaseTime, "lease", 0, "how long an address belongs to a machine in full mode (default 1h)")
	f.StringVar(&o.Tree, "tree", "", "`directory` with vmlinuz, initramfs.zst and, for Secure Boot, quantavirt.efi (required)")
	f.StringVar(&o.IPXE, "ipxe", "/usr/lib/ipxe", "`directory` with undionly.kpxe and snponly.efi, unless they are in the tree")
	f.StringVar(&o.Updates, "updates", "", "`directory` with update bundles, served under /updates/")
	f.StringVar(&o.Config, "config", "", "configurations of the machines: `PATH` of a YAML or JSON file, or of a directory")
	f.StringVar(&o.State, "state", netboot.DefaultState(), "`directory` for leases and for who has fetched")
	port := f.Uint("http-port", 80, "`port` of the HTTP service")
	f.Func("uefi", "`WHAT` UEFI machines boot: auto (iPXE by PXE, the unified kernel image by HTTP boot; default), ipxe or uki", func(s string) error { o.UEFI = netboot.UEFI(s); return nil })
	f.StringVar(&o.Cmdline, "cmdline", netboot.DefaultCmdline, "`words` of the kernel's command line for every machine")
	f.StringVar(&o.TokenHash, "token-hash", "", "`sha256:HEX` of an API token that every machine trusts")
	f.BoolVar(&o.Once, "once", false, "boot a machine until it has fetched its configuration, and then no more")
	f.BoolVar(&o.KnownOnly, "known-only", false, "serve only the machines of the configuration")
	f.Func("admin", "`NETWORK/LEN` whose clients may see and change /machines, beside this machine; may be repeated", func(s string) error { return addTo(&o.Admins, s, netip.ParsePrefix) })
	asJSON := f.Bool("log-json", false, "log JSON lines")
	show := f.Bool("version", false, "print the version and end")
	o.Mode = netboot.Proxy
	if err := f.Parse(args); err != nil {
		return o, usage(f, err, stdout)
	}
	if *show {
		fmt.Fprintln(stdout, "quantavirt-netboot", version.Version)
		return o, flag.ErrHelp
	}
	if f.NArg() > 0 {
		return o, usage(f, fmt.Errorf("%q is no option", f.Arg(0)), stdout)
	}
	if *port == 0 || *port > 65535 {
		return o, usage(f, fmt.Errorf("no port %d", *port), stdout)
	}
	o.HTTPPort = uint16(*port)
	o.Log = qvlog.New(stdout, qvlog.Options{JSON: *asJSON}).With(qvlog.KeySubsystem, "netboot")
	return o, nil
}

func usage(f *flag.FlagSet, err error, stdout io.Writer) error {
	if errors.Is(err, flag.ErrHelp) {
		f.SetOutput(stdout)
		f.Usage()
		return err
	}
	return qverr.New(qverr.Inval, "%w", err).WithHint("quantavirt-netboot --help lists the options")
}

// pool reads FIRST-LAST.
func pool(s string, o *netboot.Options) error {
	first, last, ok := strings.Cut(s, "-")
	if !ok {
		return fmt.Errorf("want FIRST-LAST")
	}
	var err error
	if o.First, err = netip.ParseAddr(first); err != nil {
		return err
	}
	o.Last, err = netip.ParseAddr(last)
	return err
}

func addTo[T any](list *[]T, s string, parse func(string) (T, error)) error {
	v, err := parse(s)
	if err == nil {
		*list = append(*list, v)
	}
	return err
}
