package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func (a *app) diskCmd() *cobra.Command {
	cmd := group("disk", "Disks of the VMs", a.diskListCmd(), a.diskCreateCmd(), a.diskUploadCmd(), a.diskInfoCmd(),
		a.deleteCmd("disk", func(cmd *cobra.Command, c *client, name string) (*http.Response, error) {
			return c.DeleteDisk(cmd.Context(), name)
		}))
	cmd.Aliases = []string{"storage"}
	return cmd
}

// deleteCmd is the verb of things that go at once.
func (a *app) deleteCmd(noun string, do func(*cobra.Command, *client, string) (*http.Response, error)) *cobra.Command {
	return &cobra.Command{
		Use: "delete NAME", Short: "Delete a " + noun + " that no VM uses", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := call[struct{}](a, func(c *client) (*http.Response, error) { return do(cmd, c, args[0]) })
			if err != nil {
				return err
			}
			return a.show(map[string]string{"deleted": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "%s %s: deleted\n", noun, args[0]) })
		},
	}
}

func (a *app) diskListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all disks", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.DiskList](a, func(c *client) (*http.Response, error) { return c.ListDisks(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "NAME", "FORMAT", "SIZE", "ALLOCATED", "USED BY", "CREATED")
				for _, d := range ans.value.Items {
					row(w, d.Name, d.Format, size(d.SizeBytes), size(d.AllocatedBytes), strings.Join(d.UsedBy, ","), when(d.CreatedAt))
				}
			})
		},
	}
}

func (a *app) diskInfoCmd() *cobra.Command {
	return &cobra.Command{
		Use: "info NAME", Aliases: []string{"show"}, Short: "Show a disk", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[spec.Disk](a, func(c *client) (*http.Response, error) { return c.GetDisk(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { diskTable(w, ans.value) })
		},
	}
}

func diskTable(w io.Writer, d spec.Disk) {
	row(w, "Name", d.Name)
	row(w, "Format", d.Format)
	row(w, "Size", fmt.Sprintf("%s (%d bytes)", size(d.SizeBytes), d.SizeBytes))
	row(w, "Allocated", size(d.AllocatedBytes))
	row(w, "Used by", strings.Join(d.UsedBy, ", "))
	row(w, "Open in", strings.Join(d.LockedBy, ", "))
	if d.Sha256 != "" {
		row(w, "SHA-256", d.Sha256)
	}
	row(w, "Created", when(d.CreatedAt))
}

// nameOf takes the name from the argument or from --name.
func nameOf(cmd *cobra.Command, args []string, flag string) (string, error) {
	switch {
	case len(args) == 1 && flag == "":
		return args[0], nil
	case len(args) == 0 && flag != "":
		return flag, nil
	}
	return "", usage(cmd, errors.New("give one name"))
}

func (a *app) diskCreateCmd() *cobra.Command {
	var name, format, sizeText string
	cmd := &cobra.Command{
		Use: "create NAME --size SIZE", Short: "Make an empty disk", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := nameOf(cmd, args, name)
			if err != nil {
				return err
			}
			bytes, err := spec.ParseSize(strings.ToUpper(sizeText))
			if err != nil {
				return usage(cmd, err)
			}
			ans, err := call[spec.Disk](a, func(c *client) (*http.Response, error) {
				return c.CreateDisk(cmd.Context(), &spec.CreateDiskParams{}, spec.DiskCreate{Name: name, Size: bytes, Format: spec.DiskFormat(format)})
			})
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { diskTable(w, ans.value) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the disk")
	cmd.Flags().StringVar(&format, "format", "raw", "raw or qcow2")
	cmd.Flags().StringVar(&sizeText, "size", "", "bytes, or a number with K, M, G or T")
	return cmd
}

func (a *app) diskUploadCmd() *cobra.Command {
	var name, file, sizeText string
	cmd := &cobra.Command{
		Use: "upload NAME --file FILE", Short: "Upload a raw disk", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := nameOf(cmd, args, name)
			if err != nil {
				return err
			}
			if file == "" {
				return usage(cmd, errors.New("--file is missing"))
			}
			up, err := a.openUpload(file, "disk "+name)
			if err != nil {
				return err
			}
			defer up.close()
			ans, err := call[spec.Disk](a, func(c *client) (*http.Response, error) {
				return c.CreateDiskWithBody(cmd.Context(), &spec.CreateDiskParams{Name: name, Size: strings.ToUpper(sizeText)},
					"application/octet-stream", up.body, up.edit)
			})
			up.bar.end()
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { diskTable(w, ans.value) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the disk")
	cmd.Flags().StringVar(&file, "file", "", "what to upload")
	cmd.Flags().StringVar(&sizeText, "size", "", "make the disk larger than the file")
	return cmd
}

func (a *app) imageCmd() *cobra.Command {
	return group("image", "Kernels, initrds and raw images", a.imageListCmd(), a.imageShowCmd(), a.imageUploadCmd(),
		a.deleteCmd("image", func(cmd *cobra.Command, c *client, id string) (*http.Response, error) {
			return c.DeleteImage(cmd.Context(), id)
		}))
}

func (a *app) imageListCmd() *cobra.Command {
	return &cobra.Command{
		Use: "list", Short: "List all images", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.ImageList](a, func(c *client) (*http.Response, error) { return c.ListImages(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "NAME", "KIND", "SIZE", "USED BY", "SHA-256", "CREATED")
				for _, i := range ans.value.Items {
					row(w, i.ID, i.Kind, size(i.SizeBytes), strings.Join(i.UsedBy, ","), fmt.Sprintf("%.16s", i.Sha256), when(i.CreatedAt))
				}
			})
		},
	}
}

func (a *app) imageShowCmd() *cobra.Command {
	return &cobra.Command{
		Use: "show NAME", Aliases: []string{"info"}, Short: "Show an image", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			ans, err := call[spec.Image](a, func(c *client) (*http.Response, error) { return c.GetImage(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { imageTable(w, ans.value) })
		},
	}
}

func imageTable(w io.Writer, i spec.Image) {
	row(w, "Name", i.ID)
	row(w, "Kind", i.Kind)
	row(w, "Size", fmt.Sprintf("%s (%d bytes)", size(i.SizeBytes), i.SizeBytes))
	row(w, "SHA-256", i.Sha256)
	row(w, "Used by", strings.Join(i.UsedBy, ", "))
	row(w, "Created", when(i.CreatedAt))
}

func (a *app) imageUploadCmd() *cobra.Command {
	var name, file, kind string
	cmd := &cobra.Command{
		Use: "upload NAME --file FILE", Short: "Upload a kernel, an initrd or a raw image", Args: cobra.ArbitraryArgs,
		RunE: func(cmd *cobra.Command, args []string) error {
			name, err := nameOf(cmd, args, name)
			if err != nil {
				return err
			}
			if file == "" {
				return usage(cmd, errors.New("--file is missing"))
			}
			up, err := a.openUpload(file, "image "+name)
			if err != nil {
				return err
			}
			defer up.close()
			if kind == "" {
				if kind = up.kind(); kind == "" {
					return qverr.New(qverr.Inval, "%s is not clearly a kernel, an initrd or an image", file).WithHint("say so with --kind")
				}
			}
			ans, err := call[spec.Image](a, func(c *client) (*http.Response, error) {
				return c.UploadImageWithBody(cmd.Context(), &spec.UploadImageParams{ID: name, Kind: spec.ImageKind(kind)},
					"application/octet-stream", up.body, up.edit)
			})
			up.bar.end()
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { imageTable(w, ans.value) })
		},
	}
	cmd.Flags().StringVar(&name, "name", "", "name of the image")
	cmd.Flags().StringVar(&file, "file", "", "what to upload")
	cmd.Flags().StringVar(&kind, "kind", "", "kernel, initrd or raw (looked for in the file when absent)")
	return cmd
}
