package cli

import (
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
)

func (a *app) systemDisksCmd() *cobra.Command {
	return &cobra.Command{
		Use: "disks", Short: "List the disks of the machine, what is on them and what uses them", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.SystemDiskList](a, func(c *client) (*http.Response, error) { return c.ListSystemDisks(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { systemDisksTable(w, ans.value.Items) })
		},
	}
}

func systemDisksTable(w io.Writer, all []spec.SystemDisk) {
	row(w, "DEVICE", "SIZE", "BUS", "STATE", "MODEL", "SERIAL", "CONTENT", "USED BY", "PATH")
	for _, d := range all {
		content := d.Table
		if d.FileSystem != nil {
			content = fileSystem(d.FileSystem)
		}
		if d.Problem != nil {
			content = problem(*d.Problem)
		}
		row(w, d.Device, size(d.SizeBytes), d.Bus, d.State, d.Model, d.Serial, content, strings.Join(d.UsedBy, ", "), d.Path)
		for _, p := range d.Partitions {
			row(w, "  "+p.Device, size(p.SizeBytes), "", "", p.Name, "", fileSystem(p.FileSystem), "", "")
		}
	}
}

func fileSystem(fs *spec.FileSystem) string {
	if fs == nil {
		return ""
	}
	if fs.Label == "" {
		return fs.Type
	}
	return fmt.Sprintf("%s %q", fs.Type, fs.Label)
}
