package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// diskLatency says how long a disk's requests took.
func diskLatency(d vmm.DiskStats) string {
	mean := int64(0)
	if n := int64(d.Latency.Count); n > 0 {
		mean = d.Latency.SumUS / n
	}
	return fmt.Sprintf("latency %v, worst %v, %d limited", time.Duration(mean)*time.Microsecond, time.Duration(d.Latency.MaxUS)*time.Microsecond, d.Throttled)
}

func (a *app) vmLimitCmd() *cobra.Command {
	var iops int64
	var bandwidth string
	cmd := &cobra.Command{
		Use: "limit NAME DISK", Short: "Limit a disk of a VM, also while it runs", Args: exactArgs(2), ValidArgsFunction: a.vmNames,
		Long: "Limit how many requests and bytes per second a disk of a VM does. DISK is its name or path as in the configuration,\n" +
			"or disk0, disk1 and so on as in vm stats. 0 ends a limit; one that is not given stays.",
		Example: "  quantavirt vm limit web debian --iops 500 --bandwidth 20M",
		RunE: func(cmd *cobra.Command, args []string) error {
			flags := cmd.Flags()
			if !flags.Changed("iops") && !flags.Changed("bandwidth") {
				return usage(cmd, errors.New("give --iops or --bandwidth"))
			}
			bytes, err := spec.ParseSize(strings.ToUpper(bandwidth))
			if err != nil {
				return usage(cmd, err)
			}
			vm, err := call[spec.VM](a, func(c *client) (*http.Response, error) { return c.GetVM(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			storage := vm.value.Config.Storage
			i, err := diskIndex(storage, args[1])
			if err != nil {
				return err
			}
			if flags.Changed("iops") {
				storage[i].Iops = iops
			}
			if flags.Changed("bandwidth") {
				storage[i].Bandwidth = bytes
			}
			patch := spec.MergePatch{"storage": storage}
			ans, err := call[spec.VM](a, func(c *client) (*http.Response, error) { return c.UpdateVM(cmd.Context(), args[0], patch) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { fmt.Fprintf(w, "VM %s: changed\n", ans.value.Name) })
		},
	}
	cmd.Flags().Int64Var(&iops, "iops", 0, "requests per second")
	cmd.Flags().StringVar(&bandwidth, "bandwidth", "0", "bytes per second, or with K, M, G or T")
	return cmd
}

// diskIndex finds a disk of a VM.
func diskIndex(storage []spec.StorageConfig, name string) (int, error) {
	i := slices.IndexFunc(storage, func(d spec.StorageConfig) bool { return d.Disk == name || d.Path == name })
	if i >= 0 {
		return i, nil
	}
	for i := range storage {
		if fmt.Sprintf("disk%d", i) == name {
			return i, nil
		}
	}
	return 0, qverr.New(qverr.NoEnt, "the VM has no disk %s", name)
}
