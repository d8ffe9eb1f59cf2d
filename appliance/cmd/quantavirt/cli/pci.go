package cli

import (
	"io"
	"net/http"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
)

func (a *app) systemPCICmd() *cobra.Command {
	return &cobra.Command{
		Use: "pci", Short: "List the PCI functions of the machine, and whether a VM can have them", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.SystemPCIList](a, func(c *client) (*http.Response, error) { return c.ListSystemPCI(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { systemPCITable(w, ans.value.Items) })
		},
	}
}

func systemPCITable(w io.Writer, all []spec.SystemPCI) {
	row(w, "ADDRESS", "ID", "CLASS", "GROUP", "DRIVER", "FOR VMS", "USED BY")
	for _, f := range all {
		group := "-"
		if f.IOMMUGroup >= 0 {
			group = strconv.Itoa(f.IOMMUGroup)
			if n := len(f.GroupMembers); n > 0 {
				group += " +" + strconv.Itoa(n)
			}
		}
		assignable := "yes"
		if !f.Assignable {
			assignable = "no"
		}
		uses := f.Uses
		if f.VM != "" {
			uses = append([]string{"VM " + f.VM}, uses...)
		}
		row(w, f.Address, f.Vendor+":"+f.Device, f.ClassName, group, f.Driver, assignable, strings.Join(uses, ", "))
	}
}
