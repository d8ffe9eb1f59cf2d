package cli

import (
	"context"
	"fmt"
	"io"
	"maps"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

func (a *app) vmCrashCmd() *cobra.Command {
	return &cobra.Command{
		Use: "crash NAME", Short: "Show what is known of a VM's last crash", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := a.getCrash(cmd.Context(), args[0])
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				crashTable(w, ans.value)
				crashDetails(w, ans.value)
			})
		},
	}
}

func (a *app) getCrash(ctx context.Context, name string) (answer[vmm.CrashReport], error) {
	return call[vmm.CrashReport](a, func(c *client) (*http.Response, error) { return c.GetVMCrash(ctx, name) })
}

// lastCrash is nil for a VM that never crashed.
func (a *app) lastCrash(ctx context.Context, vm spec.VM) (*vmm.CrashReport, error) {
	if vm.CrashedAt == nil {
		return nil, nil
	}
	ans, err := a.getCrash(ctx, vm.Name)
	if qverr.CodeOf(err) == qverr.NoEnt { // its report is gone
		return nil, nil
	}
	return &ans.value, err
}

// crashTable is the crash in short, as vm show has it.
func crashTable(w io.Writer, c vmm.CrashReport) {
	row(w, "Crash", when(c.Time), c.Message)
	if c.VCPU != nil && *c.VCPU < len(c.VCPUs) {
		v := c.VCPUs[*c.VCPU]
		note := ""
		if c.RegistersReset {
			note = " (reset by KVM)"
		}
		row(w, "  vCPU", fmt.Sprintf("%d, rip %#x%s", v.ID, uint64(v.Registers["rip"]), note))
		if n := len(v.LastExits); n > 0 {
			row(w, "  last exit", exitText(v.LastExits[n-1]))
		}
	}
	brokenRows(w, c.Devices)
}

func brokenRows(w io.Writer, devices []vmm.Device) {
	for _, d := range devices {
		if d.Broken != "" {
			row(w, "  "+d.ID, "broken: "+d.Broken)
		}
	}
}

func crashDetails(w io.Writer, c vmm.CrashReport) {
	for _, v := range c.VCPUs {
		fmt.Fprintf(w, "\nvCPU %d\n", v.ID)
		if v.Error != "" {
			row(w, "no registers", v.Error)
		}
		for part := range slices.Chunk(slices.Sorted(maps.Keys(v.Registers)), 4) {
			var cells []string
			for _, name := range part {
				cells = append(cells, fmt.Sprintf("%s=%#x", name, uint64(v.Registers[name])))
			}
			fmt.Fprintln(w, strings.Join(cells, " "))
		}
		for _, e := range v.LastExits {
			fmt.Fprintln(w, "exit: "+exitText(e))
		}
	}
	for _, name := range slices.Sorted(maps.Keys(c.Console)) {
		fmt.Fprintf(w, "\nEnd of %s:\n%s\n", name, strings.TrimRight(c.Console[name], "\n"))
	}
	if c.Log != "" {
		fmt.Fprintf(w, "\nEnd of the VM process's log:\n%s\n", strings.TrimRight(c.Log, "\n"))
	}
}

func exitText(e vmm.ExitRecord) string {
	switch e.Access {
	case "":
		return e.Reason
	case "write":
		return fmt.Sprintf("%s: write of %d bytes to %#x: %#x", e.Reason, e.Size, uint64(e.Addr), uint64(e.Data))
	}
	return fmt.Sprintf("%s: %s of %d bytes from %#x", e.Reason, e.Access, e.Size, uint64(e.Addr))
}

// vmmTable is what the VM process counts: vCPUs and devices.
func vmmTable(w io.Writer, s spec.VMStats) {
	for _, v := range s.VMM.VCPUs {
		steal := int64(0)
		if v.ID < len(s.CPU.StealUs) {
			steal = s.CPU.StealUs[v.ID]
		}
		var reasons []string
		for _, name := range slices.Sorted(maps.Keys(v.Reasons)) {
			reasons = append(reasons, fmt.Sprintf("%s %d", name, v.Reasons[name]))
		}
		row(w, fmt.Sprintf("vCPU %d", v.ID), time.Duration(v.CPUUS)*time.Microsecond,
			fmt.Sprintf("steal %v", time.Duration(steal)*time.Microsecond), "exits: "+strings.Join(reasons, ", "))
	}
	for _, d := range s.VMM.Disks {
		row(w, d.ID, fmt.Sprintf("%d reads of %s", d.Reads, size(int64(d.ReadBytes))),
			fmt.Sprintf("%d writes of %s", d.Writes, size(int64(d.WriteBytes))),
			fmt.Sprintf("%d flushes, %d discards, %d errors", d.Flushes, d.Discards, d.Errors), diskLatency(d))
	}
	for _, n := range s.VMM.NICs {
		if n.Offloaded {
			row(w, n.ID, "in the kernel (vhost)")
			continue
		}
		row(w, n.ID, fmt.Sprintf("%d packets in, %s", n.RxPackets, size(int64(n.RxBytes))),
			fmt.Sprintf("%d out, %s", n.TxPackets, size(int64(n.TxBytes))), fmt.Sprintf("%d dropped, %d errors", n.RxDropped, n.TxErrors))
	}
	for _, c := range s.VMM.Consoles {
		row(w, c.ID, size(int64(c.Bytes)), fmt.Sprintf("%d bytes dropped", c.Dropped))
	}
	brokenRows(w, s.VMM.Devices)
}
