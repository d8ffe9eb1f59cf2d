package cli

import (
	"io"
	"net/http"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
)

func (a *app) networkCmd() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List all networks", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.NetworkList](a, func(c *client) (*http.Response, error) { return c.ListNetworks(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "NAME", "SUBNET", "BRIDGE", "DHCP", "NAT", "MTU", "READY")
				for _, n := range ans.value.Items {
					row(w, n.Name, n.Subnet, n.Bridge, yes(n.DHCP), yes(n.NAT), n.MTU, yes(n.Ready))
				}
			})
		},
	}
	show := &cobra.Command{
		Use: "show NAME", Short: "Show a network", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[spec.Network](a, func(c *client) (*http.Response, error) { return c.GetNetwork(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { networkTable(w, ans.value) })
		},
	}
	leases := &cobra.Command{
		Use: "leases NAME", Short: "List the DHCP leases of a network", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[spec.LeaseList](a, func(c *client) (*http.Response, error) { return c.ListLeases(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "ADDRESS", "MAC", "HOSTNAME", "VM", "FIXED", "EXPIRES")
				for _, l := range ans.value.Items {
					row(w, l.Address, l.MAC, l.Hostname, l.VM, yes(l.Fixed), when(l.ExpiresAt))
				}
			})
		},
	}
	return group("network", "Networks of the VMs", list, show, leases)
}

func networkTable(w io.Writer, n spec.Network) {
	row(w, "Name", n.Name)
	row(w, "ID", n.ID)
	row(w, "Bridge", n.Bridge)
	row(w, "Subnet", n.Subnet)
	row(w, "Gateway", n.Gateway)
	row(w, "DHCP", yes(n.DHCP))
	row(w, "NAT", yes(n.NAT))
	row(w, "MTU", n.MTU)
	row(w, "Ready", yes(n.Ready))
	if n.Problem.Code != 0 {
		row(w, "Problem", problem(n.Problem))
		row(w, "Recovery", n.Problem.Recovery)
	}
}
