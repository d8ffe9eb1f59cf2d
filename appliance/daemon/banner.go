package daemon

import (
	"context"
	"fmt"
	"io"
	"net"
	"net/netip"

	"quantavirt/appliance/network"
	"quantavirt/internal/initapi"
	"quantavirt/internal/version"
)

// console shows the banner: on the node's consoles through PID 1, or on
// standard output.
type console struct {
	init *initapi.Client // nil: standard output
	out  io.Writer
}

func (c *console) show(ctx context.Context, lines []string) error {
	if c.init != nil {
		return c.init.Console(ctx, initapi.Banner{Lines: lines})
	}
	for _, line := range lines {
		if _, err := fmt.Fprintln(c.out, line); err != nil {
			return err
		}
	}
	return nil
}

// banner is short: a character on a serial console costs its time. The two
// lines that begin with "quantavirt:" are for machines. token is "" but at the
// first boot.
func banner(hostname, url, authority, token string) []string {
	lines := []string{"QuantaVirt " + version.Version + " on " + hostname}
	if token != "" {
		lines = append(lines, "quantavirt: token "+token, "  shown once; log in: quantavirt --host "+url+" --token TOKEN system info")
	}
	return append(lines, "quantavirt: ready url="+url+" ca="+authority)
}

// url is where the API is reached over the network: at the address that it
// listens on, or that of the uplink when it listens on all.
func url(n *network.Service, listen string) string {
	host, port, err := net.SplitHostPort(listen)
	if err != nil {
		return "unix"
	}
	if a, err := netip.ParseAddr(host); err != nil || a.IsUnspecified() {
		host = "127.0.0.1"
		if a, ok := n.Address(); ok {
			host = a.String()
		}
	}
	return "https://" + net.JoinHostPort(host, port)
}
