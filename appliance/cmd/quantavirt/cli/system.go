package cli

import (
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func (a *app) systemCmd() *cobra.Command {
	return group("system", "The node itself", a.systemInfoCmd(), a.capabilitiesCmd(), a.systemDisksCmd(), a.systemPCICmd(), a.systemInstallCmd(),
		a.powerCmd("reboot", "Stop the VMs and reboot the node", func(cmd *cobra.Command, c *client) (*http.Response, error) {
			return c.Reboot(cmd.Context())
		}),
		a.powerCmd("poweroff", "Stop the VMs and power the node off", func(cmd *cobra.Command, c *client) (*http.Response, error) {
			return c.PowerOff(cmd.Context())
		}),
		a.updateCmd(), a.slotsCmd(),
		a.powerCmd("rollback", "Make the slot before the one that boots, and reboot", func(cmd *cobra.Command, c *client) (*http.Response, error) {
			return c.RollBack(cmd.Context())
		}),
		a.uplinkCmd(), a.restartDaemonCmd(), a.backupCmd(), a.restoreCmd(), a.supportBundleCmd(),
		a.measurementsCmd(), a.systemAttestCmd(), a.unlockCmd(), a.resealCmd(), a.recoveryKeyCmd(), a.tokenCmd(), a.errorLookupCmd())
}

func (a *app) systemInfoCmd() *cobra.Command {
	return &cobra.Command{
		Use: "info", Short: "Show what the node is and how it does", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.SystemInfo](a, func(c *client) (*http.Response, error) { return c.GetSystemInfo(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { infoTable(w, ans.value) })
		},
	}
}

func infoTable(w io.Writer, i spec.SystemInfo) {
	if i.Mode == spec.SystemInfoModeRescue {
		why := ""
		if i.Rescue != nil {
			why = plain(i.Rescue.Reason)
		}
		fmt.Fprintf(w, "RESCUE MODE: %s\n\n", why)
	}
	row(w, "Node", i.Hostname)
	row(w, "ID", i.NodeID)
	row(w, "Version", i.Version)
	row(w, "Kernel", i.Kernel.Release)
	row(w, "Time", when(i.Time)+" UTC"+synchronised(i.Clock))
	row(w, "Uptime", seconds(i.UptimeSeconds))
	row(w, "CPU", fmt.Sprintf("%d × %s", i.CPU.Count, i.CPU.Model))
	for _, name := range slices.Sorted(maps.Keys(i.CPU.Vulnerabilities)) {
		if text := i.CPU.Vulnerabilities[name]; text != "Not affected" {
			row(w, "  "+name, text)
		}
	}
	row(w, "Memory", fmt.Sprintf("%s, %s available, VMs may take %s", size(i.Memory.TotalBytes), size(i.Memory.AvailableBytes), size(i.Memory.AdmissibleBytes)))
	row(w, "VMs", fmt.Sprintf("%d, %d running", i.Vms.Total, i.Vms.Running))
	row(w, "KVM", kvm(i.KVM))
	row(w, "IOMMU", iommu(i.IOMMU))
	row(w, "Cryptography", i.CryptoProvider)
	row(w, "Data", dataVolume(i.DataVolume))
	trustRows(w, i.Trust)
	row(w, "Uplink", uplink(i.Network))
	if i.Configuration.Source != "" {
		row(w, "Configuration", configuration(i.Configuration))
	}
	row(w, "TLS", fmt.Sprintf("%s (%s)", i.TLS.Policy, strings.Join(i.TLS.KeyExchanges, ", ")))
	row(w, "Authority", i.TLS.CaFingerprint)
	row(w, "Daemon", fmt.Sprintf("since %s, %d restarts, %s", when(i.Daemon.StartedAt), i.Daemon.Restarts, size(i.Daemon.MemoryBytes)))
	if i.Watchdog != "" {
		row(w, "Watchdog", i.Watchdog)
	}
	for _, c := range i.Cards {
		cardTable(w, c)
	}
	io.WriteString(w, "\n")
	row(w, "BOOT STEP", "AT", "TOOK", "PROBLEM")
	for _, s := range i.BootSteps {
		p := ""
		if s.Problem != nil {
			p = problem(*s.Problem)
		}
		row(w, s.Name, fmt.Sprintf("%d ms", s.StartMS), fmt.Sprintf("%d ms", s.TookMS), p)
	}
	for _, p := range i.Problems {
		fmt.Fprintf(w, "\n%s\n  → %s\n", plain(problem(p)), plain(p.Recovery))
	}
}

func configuration(c spec.ConfigurationInfo) string {
	s := fmt.Sprintf("%s %s, sha256:%.16s…, since %s", c.Source, c.Place, c.Sha256, whenPtr(c.AppliedAt))
	if len(c.Problems) > 0 {
		s += fmt.Sprintf(", %d problems", len(c.Problems))
	}
	return s
}

func synchronised(c spec.Clock) string {
	if !c.Synchronised {
		return ", not synchronised"
	}
	return ", synchronised with " + c.Server
}

func kvm(k spec.KVM) string {
	if !k.Available {
		return "not available"
	}
	paging := "without nested paging"
	if k.NestedPaging {
		paging = "with nested paging"
	}
	s := k.Module + " (" + k.Vendor + ") " + paging
	if k.Nested {
		s += ", guests may run KVM"
	}
	return s
}

func iommu(i spec.IOMMU) string {
	if !i.Available {
		return "not available"
	}
	return fmt.Sprintf("%s, %d groups", i.Kind, len(i.Groups))
}

func dataVolume(d spec.DataVolume) string {
	switch {
	case d.Locked:
		return fmt.Sprintf("%s is encrypted and shut; in RAM until it is opened, lost then (%s, %s free)", d.Device, size(d.SizeBytes), size(d.FreeBytes))
	case d.Encrypted:
		return fmt.Sprintf("%s, encrypted (%s, %s free)", d.Device, size(d.SizeBytes), size(d.FreeBytes))
	case !d.Persistent:
		return fmt.Sprintf("in RAM, lost at reboot (%s, %s free)", size(d.SizeBytes), size(d.FreeBytes))
	}
	return fmt.Sprintf("%s (%s, %s free)", d.Device, size(d.SizeBytes), size(d.FreeBytes))
}

func uplink(u spec.UplinkInfo) string {
	s := string(u.State)
	if u.Interface != "" {
		s += ", " + u.Interface + " " + strings.Join(u.Addresses, " ")
	}
	if u.Gateway != "" {
		s += ", gateway " + u.Gateway
	}
	if u.Mode != "" {
		s += " (" + string(u.Mode) + ")"
	}
	return s
}

func (a *app) capabilitiesCmd() *cobra.Command {
	return &cobra.Command{
		Use: "capabilities", Short: "Show what the node can do, and why not", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.Capabilities](a, func(c *client) (*http.Response, error) { return c.GetCapabilities(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "FEATURE", "AVAILABLE", "WHY NOT")
				for _, f := range ans.value.Features {
					why := ""
					if f.Problem.Code != 0 {
						why = problem(f.Problem)
					}
					row(w, f.Name, yes(f.Available), why)
				}
				l := ans.value.Limits
				io.WriteString(w, "\n")
				row(w, "Machine types", strings.Join(ans.value.MachineTypes, " "))
				row(w, "CPU flags", strings.Join(ans.value.CPUFlags, " "))
				row(w, "vCPUs of a VM", l.VcpusPerVM)
				row(w, "Disks of a VM", l.DisksPerVM)
				row(w, "NICs of a VM", l.NicsPerVM)
				row(w, "Least memory of a VM", size(l.MemoryMinBytes))
			})
		},
	}
}

func (a *app) powerCmd(verb, short string, do func(*cobra.Command, *client) (*http.Response, error)) *cobra.Command {
	return &cobra.Command{
		Use: verb, Short: short, Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.PowerAction](a, func(c *client) (*http.Response, error) { return do(cmd, c) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { fmt.Fprintf(w, "%s: the node goes down\n", ans.value.Action) })
		},
	}
}

func (a *app) restartDaemonCmd() *cobra.Command {
	return &cobra.Command{
		Use: "restart-daemon", Short: "Start the management daemon anew; VMs run on", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.PowerAction](a, func(c *client) (*http.Response, error) { return c.RestartDaemon(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				fmt.Fprintln(w, "the daemon is started anew; see how it went with: quantavirt system info")
			})
		},
	}
}

// errorLookupCmd needs no node: the catalogue is in the program.
func (a *app) errorLookupCmd() *cobra.Command {
	return &cobra.Command{
		Use: "error-lookup CODE|NAME", Short: "Explain an error code, a name, a card response (0x0004) or an exit code", Args: minArgs(1),
		Example: "  quantavirt system error-lookup -3\n  quantavirt system error-lookup QUAC100_RESP_BUSY\n  quantavirt system error-lookup exit 12",
		RunE: func(cmd *cobra.Command, args []string) error {
			what := strings.Join(args, " ")
			text, err := qverr.Explain(what)
			if err != nil {
				return err
			}
			var value any = map[string]string{"text": text}
			if e, ok := qverr.LookupName(firstWord(text)); ok {
				value = e
			}
			return a.show(value, func(w io.Writer) { io.WriteString(w, text) })
		},
	}
}

func firstWord(s string) string {
	word, _, _ := strings.Cut(s, " ")
	return word
}
