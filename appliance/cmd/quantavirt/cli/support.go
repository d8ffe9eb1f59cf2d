package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/support/archive"
)

// supportAddress is where bundles go.
const supportAddress = "support@dyber.org"

func (a *app) supportBundleCmd() *cobra.Command {
	var output string
	cmd := &cobra.Command{
		Use: "support-bundle --output FILE", Short: "Save what is to be known of the node to help with it, without secrets", Args: noArgs,
		Long: `Save what is to be known of the node to help with it as one file, a tar archive packed by gzip:
information, logs, configurations of virtual machines and the end of their consoles, the cards'
state, the kernel's messages, the network. Passphrases, tokens and keys are taken out by the node.
What could not be collected is named, on stderr and in the file.`,
		Example: "  quantavirt system support-bundle --output diag.tar.gz\n  tar tzf diag.tar.gz",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return usage(cmd, errors.New("--output is missing"))
			}
			return a.supportBundle(cmd.Context(), output)
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "the file to make, such as diag.tar.gz; it must not be there yet")
	return cmd
}

func (a *app) supportBundle(ctx context.Context, output string) error {
	var m archive.Manifest
	progress := &bundleProgress{out: a.Out}
	if a.quiet {
		progress.out = io.Discard
	}
	n, err := saveFile(output, func(w io.Writer) error {
		c, err := a.node()
		if err != nil {
			return err
		}
		resp, err := c.GetSupportBundle(ctx)
		if err := c.check(resp, err); err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		// What arrives is looked at on its way to the file.
		body := &source{r: resp.Body}
		in := io.TeeReader(body, w)
		if m, err = archive.Read(in, progress.see); err == nil {
			_, err = io.Copy(io.Discard, in)
		}
		progress.end(err)
		if body.err != nil {
			return c.unreachable(fmt.Errorf("the bundle is cut off: %w", body.err))
		}
		return err
	})
	if err != nil {
		return err
	}
	for _, p := range m.Parts {
		for _, e := range p.Errors {
			fmt.Fprintf(a.Err, "not collected: %s\n", plain(problem(e)))
		}
	}
	fmt.Fprintf(a.Out, "\nSupport bundle: %s (%s compressed)\nUpload to: %s\n", output, decimal(n), supportAddress)
	return nil
}

// source remembers what was wrong with the connection.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}

// bundleLabels are what the parts of a bundle are called.
var bundleLabels = map[string]string{
	"system":  "system info",
	"logs":    "hypervisor logs",
	"vms":     "VM configurations",
	"quac100": "QUAC 100 diagnostics",
	"kernel":  "kernel messages",
	"network": "network state",
}

// bundleProgress says how far a bundle has come, line by line.
type bundleProgress struct {
	out   io.Writer
	part  string
	open  bool // a line is not ended
	bytes int64
	vms   map[string]bool
	lacks bool // the part is not whole
}

// see is shown what arrives.
func (p *bundleProgress) see(e archive.Entry) {
	switch {
	case e.Part == "": // the manifest: all has gone through the node's filter
		p.end(nil)
		p.begin("Redacting sensitive data")
		p.part = ""
	case e.Name == "":
		p.end(nil)
		label := bundleLabels[e.Part]
		if label == "" {
			label = plain(e.Part)
		}
		p.begin("Collecting " + label)
		p.part, p.bytes, p.vms, p.lacks = e.Part, 0, make(map[string]bool), false
	case e.Name == archive.ErrorsName:
		p.lacks = true
	default:
		p.bytes += e.Bytes
		if vm, _, ok := strings.Cut(e.Name, "/"); ok {
			p.vms[vm] = true
		}
	}
}

// begin begins a line, whose dots fill it up to where its end stands, but are two at least.
func (p *bundleProgress) begin(label string) {
	const width = 34
	dots := strings.Repeat(".", min(3, max(2, width-1-len(label))))
	fmt.Fprintf(p.out, "%-*s", width, label+dots)
	p.open = true
}

// end ends the line, if there is one.
func (p *bundleProgress) end(err error) {
	if !p.open {
		return
	}
	p.open = false
	word := "done"
	switch {
	case err != nil:
		word = "failed"
	case p.lacks:
		word = "incomplete"
	}
	switch {
	case err != nil, p.lacks && p.bytes == 0: // there is nothing to count
	case p.part == "logs":
		word += " (" + decimal(p.bytes) + ")"
	case p.part == "vms" && len(p.vms) == 1:
		word += " (1 VM)"
	case p.part == "vms":
		word += fmt.Sprintf(" (%d VMs)", len(p.vms))
	}
	fmt.Fprintln(p.out, word)
}

// decimal is a number of bytes in units of a thousand.
func decimal(n int64) string {
	units := []string{"kB", "MB", "GB", "TB"}
	v := float64(n) / 1000
	for len(units) > 1 && v >= 1000 {
		v, units = v/1000, units[1:]
	}
	if v < 10 {
		return fmt.Sprintf("%.1f %s", v, units[0])
	}
	return fmt.Sprintf("%.0f %s", v, units[0])
}
