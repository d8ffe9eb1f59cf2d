package cli

import (
	"context"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func (a *app) vmCmd() *cobra.Command {
	return group("vm", "Virtual machines",
		a.vmCreateCmd(), a.vmValidateCmd(), a.vmExportCmd(), a.vmListCmd(), a.vmShowCmd(), a.vmSetCmd(),
		a.vmAction("start", "Start a VM", func(ctx context.Context, c *client, name string) (*http.Response, error) {
			return c.StartVM(ctx, name, &spec.StartVMParams{})
		}),
		a.vmStopCmd(),
		a.vmAction("pause", "Stop the vCPUs of a running VM", func(ctx context.Context, c *client, name string) (*http.Response, error) {
			return c.PauseVM(ctx, name, &spec.PauseVMParams{})
		}),
		a.vmAction("resume", "Let a paused VM run on", func(ctx context.Context, c *client, name string) (*http.Response, error) {
			return c.ResumeVM(ctx, name, &spec.ResumeVMParams{})
		}),
		a.vmAction("reset", "Reset a VM as its reset button would", func(ctx context.Context, c *client, name string) (*http.Response, error) {
			return c.ResetVM(ctx, name, &spec.ResetVMParams{})
		}),
		a.vmDestroyCmd(), a.vmStatsCmd(), a.vmLimitCmd(), a.vmCrashCmd(), a.vmConsoleCmd(), a.vmAttestCmd())
}

// vmAction is a verb that is one task and has no options of its own.
func (a *app) vmAction(verb, short string, do func(context.Context, *client, string) (*http.Response, error)) *cobra.Command {
	return a.addNoWait(&cobra.Command{
		Use: verb + " NAME", Short: short, Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), verb+" VM "+args[0], func(c *client) (*http.Response, error) {
				return do(cmd.Context(), c, args[0])
			})
		},
	})
}

func (a *app) vmStopCmd() *cobra.Command {
	var opts spec.StopOptions
	var timeout time.Duration
	cmd := a.addNoWait(&cobra.Command{
		Use: "stop NAME", Short: "Press a VM's power button, or end it with --force", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			opts.Timeout = int((timeout + time.Second - 1) / time.Second)
			return a.act(cmd.Context(), "stop VM "+args[0], func(c *client) (*http.Response, error) {
				return c.StopVM(cmd.Context(), args[0], &spec.StopVMParams{}, opts)
			})
		},
	})
	cmd.Flags().BoolVar(&opts.Force, "force", false, "end it at once, without the guest's help")
	cmd.Flags().DurationVar(&timeout, "timeout", 0, "time that the guest has (the node's default when absent)")
	return cmd
}

func (a *app) vmDestroyCmd() *cobra.Command {
	var force bool
	cmd := a.addNoWait(&cobra.Command{
		Use: "destroy NAME", Short: "Destroy a VM; its disks stay", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.act(cmd.Context(), "destroy VM "+args[0], func(c *client) (*http.Response, error) {
				return c.DestroyVM(cmd.Context(), args[0], &spec.DestroyVMParams{Force: force})
			})
		},
	})
	cmd.Flags().BoolVar(&force, "force", false, "end it first if it runs")
	return cmd
}

func (a *app) vmListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all VMs", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.VMList](a, func(c *client) (*http.Response, error) { return c.ListVMs(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "NAME", "STATE", "VCPUS", "MEMORY", "ADDRESSES", "SINCE")
				for _, vm := range ans.value.Items {
					row(w, vm.Name, vm.State, max(vm.Config.CPU.Count, 1), vm.Config.Memory.Size, addresses(vm), when(vm.StateSince))
				}
			})
		},
	}
}

func addresses(vm spec.VM) string {
	var all []string
	for _, n := range vm.Nics {
		all = append(all, n.Addresses...)
	}
	return strings.Join(all, ",")
}

func (a *app) vmShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Short: "Show a VM", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := a.getVM(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			crash, err := a.lastCrash(cmd.Context(), ans.value)
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				vmTable(w, ans.value)
				if crash != nil {
					crashTable(w, *crash)
				}
			})
		},
	}
}

func (a *app) getVM(ctx context.Context, name string) (answer[spec.VM], error) {
	return call[spec.VM](a, func(c *client) (*http.Response, error) { return c.GetVM(ctx, name) })
}

func vmTable(w io.Writer, vm spec.VM) {
	cfg := vm.Config
	row(w, "Name", vm.Name)
	if cfg.Description != "" {
		row(w, "Description", cfg.Description)
	}
	row(w, "UUID", vm.UUID)
	row(w, "State", vm.State)
	row(w, "Since", when(vm.StateSince))
	if vm.Reason != "" {
		row(w, "Reason", vm.Reason)
	}
	if vm.Error.Code != 0 {
		row(w, "Error", problem(vm.Error))
	}
	row(w, "vCPUs", max(cfg.CPU.Count, 1))
	row(w, "Memory", cfg.Memory.Size)
	row(w, "Firmware", cfg.Boot.Firmware)
	if cfg.Boot.Kernel != "" {
		row(w, "Kernel", cfg.Boot.Kernel)
		row(w, "Initrd", cfg.Boot.Initrd)
		row(w, "Command line", cfg.Boot.Cmdline)
	}
	for i, s := range cfg.Storage {
		mode := ""
		if s.Readonly {
			mode = " (read-only)"
		}
		row(w, fmt.Sprintf("Disk %d", i), first(s.Disk, s.Path)+mode)
	}
	for i, n := range vm.Nics {
		row(w, fmt.Sprintf("NIC %d", i), n.Network, n.MAC, strings.Join(n.Addresses, ","))
	}
	if vm.CID != 0 {
		row(w, "vsock CID", vm.CID)
	}
	if vm.Pid != 0 {
		row(w, "Process", vm.Pid)
	}
	row(w, "Autostart", yes(cfg.Autostart.Enabled))
	row(w, "Restart", first(string(cfg.Restart), "never"))
	row(w, "Restarts", vm.Restarts)
	row(w, "Created", when(vm.CreatedAt))
	if vm.Task != "" {
		row(w, "Task", vm.Task)
	}
}

func problem(p spec.Problem) string {
	return fmt.Sprintf("%s (%d): %s", p.Name, p.Code, p.Message)
}

func (a *app) vmStatsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "stats NAME", Short: "Show what a running VM uses", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[spec.VMStats](a, func(c *client) (*http.Response, error) { return c.GetVMStats(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				s := ans.value
				row(w, "State", s.State)
				row(w, "Uptime", seconds(s.UptimeSeconds))
				row(w, "CPU time", time.Duration(s.CPU.UsageUs)*time.Microsecond)
				row(w, "  user", time.Duration(s.CPU.UserUs)*time.Microsecond)
				row(w, "  system", time.Duration(s.CPU.SystemUs)*time.Microsecond)
				row(w, "Memory", size(s.Memory.CurrentBytes))
				row(w, "  limit", size(s.Memory.LimitBytes))
				row(w, "  guest RAM", size(s.Memory.GuestBytes))
				row(w, "  beyond guest RAM", size(s.Memory.BeyondBytes))
				vmmTable(w, s)
			})
		},
	}
}

func (a *app) vmExportCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "export NAME", Short: "Write a VM's configuration to a file", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		// This command's --output is the file.
		PersistentPreRunE: func(*cobra.Command, []string) error { return nil },
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[struct {
				Config rawJSON `json:"config"`
			}](a, func(c *client) (*http.Response, error) { return c.GetVM(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			text, err := ans.value.Config.indented()
			if err != nil {
				return err
			}
			if file == "-" {
				_, err = a.Out.Write(text)
			} else {
				err = os.WriteFile(file, text, 0o644)
			}
			if err != nil {
				return qverr.New(qverr.CodeOf(err), "write the configuration of %s: %w", args[0], err)
			}
			return nil
		},
	}
	cmd.Flags().StringVarP(&file, "output", "o", "-", `file, "-" for stdout`)
	return cmd
}

// vmNames completes the name of a VM.
func (a *app) vmNames(cmd *cobra.Command, args []string, _ string) ([]string, cobra.ShellCompDirective) {
	if len(args) > 0 {
		return nil, cobra.ShellCompDirectiveNoFileComp
	}
	ctx, cancel := context.WithTimeout(cmd.Context(), 2*time.Second)
	defer cancel()
	ans, err := call[spec.VMList](a, func(c *client) (*http.Response, error) { return c.ListVMs(ctx) })
	if err != nil {
		return nil, cobra.ShellCompDirectiveError
	}
	var names []string
	for _, vm := range ans.value.Items {
		names = append(names, vm.Name)
	}
	return names, cobra.ShellCompDirectiveNoFileComp
}
