package cli

import (
	"bufio"
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strconv"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// maxConfig is the node's limit for JSON documents.
const maxConfig = 1 << 20

// rawJSON keeps a document as the node wrote it.
type rawJSON []byte

func (r *rawJSON) UnmarshalJSON(b []byte) error {
	*r = bytes.Clone(b)
	return nil
}

func (r rawJSON) indented() ([]byte, error) {
	var b bytes.Buffer
	if err := json.Indent(&b, r, "", "  "); err != nil {
		return nil, qverr.New(qverr.Generic, "the configuration is not JSON: %w", err)
	}
	b.WriteByte('\n')
	return b.Bytes(), nil
}

// readInput reads a file, or stdin for "-".
func (a *app) readInput(file string) ([]byte, error) {
	in := a.In
	if file != "-" {
		f, err := os.Open(file)
		if err != nil {
			return nil, qverr.New(qverr.CodeOf(err), "%w", err)
		}
		defer f.Close()
		in = f
	}
	// One byte more than allowed, so that the node says what is wrong.
	data, err := io.ReadAll(io.LimitReader(in, maxConfig+1))
	if err != nil {
		return nil, qverr.New(qverr.IO, "read %s: %w", file, err)
	}
	return data, nil
}

func (a *app) vmCreateCmd() *cobra.Command {
	var file string
	var interactive, start bool
	cmd := a.addNoWait(&cobra.Command{
		Use: "create --config FILE | --interactive", Short: "Define a VM", Args: noArgs,
		Long: "Define a VM from a JSON configuration (schema version 1.0), \"-\" for stdin, or by answering questions.",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if interactive == (file != "") {
				return usage(cmd, errors.New("give either --config or --interactive"))
			}
			var config []byte
			var err error
			if interactive {
				config, err = a.ask()
			} else {
				config, err = a.readInput(file)
			}
			if err != nil {
				return err
			}
			vm, err := a.createVM(cmd, config, false)
			if err != nil || !start {
				return a.showCreated(vm, err)
			}
			return a.act(cmd.Context(), "start VM "+vm.value.Name, func(c *client) (*http.Response, error) {
				return c.StartVM(cmd.Context(), vm.value.Name, &spec.StartVMParams{})
			})
		},
	})
	cmd.Flags().StringVar(&file, "config", "", `configuration file, "-" for stdin`)
	cmd.Flags().BoolVar(&interactive, "interactive", false, "ask for the configuration")
	cmd.Flags().BoolVar(&start, "start", false, "start it at once")
	return cmd
}

func (a *app) showCreated(vm answer[spec.VM], err error) error {
	if err != nil {
		return err
	}
	return a.print(vm.raw, func(w io.Writer) { fmt.Fprintf(w, "VM %s: %s\n", vm.value.Name, vm.value.State) })
}

func (a *app) createVM(cmd *cobra.Command, config []byte, dryRun bool) (answer[spec.VM], error) {
	return call[spec.VM](a, func(c *client) (*http.Response, error) {
		return c.CreateVMWithBody(cmd.Context(), &spec.CreateVMParams{DryRun: dryRun}, "application/json", bytes.NewReader(config))
	})
}

func (a *app) vmValidateCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "validate --config FILE", Short: "Check a VM configuration against the schema and the node", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if file == "" {
				return usage(cmd, errors.New("--config is missing"))
			}
			config, err := a.readInput(file)
			if err != nil {
				return err
			}
			vm, err := a.createVM(cmd, config, true)
			if err != nil {
				return err
			}
			return a.print(vm.raw, func(w io.Writer) { fmt.Fprintf(w, "valid: VM %s\n", vm.value.Name) })
		},
	}
	cmd.Flags().StringVar(&file, "config", "", `configuration file, "-" for stdin`)
	return cmd
}

func (a *app) vmSetCmd() *cobra.Command {
	var file string
	cmd := &cobra.Command{
		Use: "set NAME FIELD=VALUE...", Aliases: []string{"update"}, Short: "Change a VM that does not run", Args: minArgs(1),
		Long: "Change the configuration of a VM that does not run. FIELD is a path as in cpu.count or memory.size; VALUE is\n" +
			"JSON or plain text, null removes the field. --patch takes a whole JSON merge patch (RFC 7396).",
		Example:           "  quantavirt vm set web cpu.count=4 memory.size=2G restart=on-crash",
		ValidArgsFunction: a.vmNames,
		RunE: func(cmd *cobra.Command, args []string) error {
			if (file != "") == (len(args) > 1) {
				return usage(cmd, errors.New("give either FIELD=VALUE or --patch"))
			}
			patch := spec.MergePatch{}
			var err error
			if file == "" {
				err = setFields(patch, args[1:])
			} else {
				err = a.readPatch(patch, file)
			}
			if err != nil {
				return err
			}
			ans, err := call[spec.VM](a, func(c *client) (*http.Response, error) { return c.UpdateVM(cmd.Context(), args[0], patch) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) { fmt.Fprintf(w, "VM %s: changed\n", ans.value.Name) })
		},
	}
	cmd.Flags().StringVar(&file, "patch", "", `file with a JSON merge patch, "-" for stdin`)
	return cmd
}

func (a *app) readPatch(patch spec.MergePatch, file string) error {
	data, err := a.readInput(file)
	if err != nil {
		return err
	}
	dec := json.NewDecoder(bytes.NewReader(data))
	dec.UseNumber()
	if err := dec.Decode(&patch); err != nil {
		return qverr.Malformed("patch %s: %w", file, err)
	}
	return nil
}

// setFields turns "cpu.count=4" into {"cpu": {"count": 4}}.
func setFields(patch map[string]any, fields []string) error {
	for _, f := range fields {
		path, text, ok := strings.Cut(f, "=")
		if !ok || path == "" {
			return qverr.New(qverr.Inval, "%q is not FIELD=VALUE", f)
		}
		var value any
		dec := json.NewDecoder(strings.NewReader(text))
		dec.UseNumber()
		// Text that is no JSON document stands for itself.
		if dec.Decode(&value) != nil || dec.More() {
			value = text
		}
		at := patch
		keys := strings.Split(path, ".")
		for _, key := range keys[:len(keys)-1] {
			child, ok := at[key].(map[string]any)
			if !ok {
				if _, taken := at[key]; taken {
					return qverr.New(qverr.Inval, "%q sets a field below one that is set itself", f)
				}
				child = map[string]any{}
				at[key] = child
			}
			at = child
		}
		at[keys[len(keys)-1]] = value
	}
	return nil
}

// ask builds a configuration from a dialogue on stderr and stdin.
func (a *app) ask() ([]byte, error) {
	q := dialogue{in: bufio.NewScanner(a.In), out: a.Err}
	config := map[string]any{"name": q.text("Name", "")}
	config["cpu"] = map[string]any{"count": q.number("vCPUs", 1)}
	config["memory"] = map[string]any{"size": q.text("Memory (K, M, G)", "512M")}
	if kernel := q.text("Kernel image (see quantavirt image list), empty to boot from a disk", "-"); kernel != "-" {
		boot := map[string]any{"firmware": "direct", "kernel": kernel}
		if initrd := q.text("Initrd image, empty for none", "-"); initrd != "-" {
			boot["initrd"] = initrd
		}
		boot["cmdline"] = q.text("Kernel command line", "console=hvc0")
		config["boot"] = boot
	}
	var disks []any
	for q.err == nil {
		disk := q.text("Disk (see quantavirt disk list), empty for no more", "-")
		if disk == "-" || disk == "" {
			break
		}
		disks = append(disks, map[string]any{"disk": disk})
	}
	if disks != nil {
		config["storage"] = disks
	}
	if network := q.text("Network, \"-\" for none", "default"); network != "-" {
		config["network"] = []any{map[string]any{"network": network}}
	}
	if q.err != nil {
		return nil, q.err
	}
	return json.Marshal(config)
}

// dialogue asks until it gets an answer; after the first error it asks nothing.
type dialogue struct {
	in  *bufio.Scanner
	out io.Writer
	err error
}

// text returns what was typed, or def for an empty line; def "" needs an answer.
func (d *dialogue) text(question, def string) string {
	for d.err == nil {
		if def == "" || def == "-" {
			fmt.Fprintf(d.out, "%s: ", question)
		} else {
			fmt.Fprintf(d.out, "%s [%s]: ", question, def)
		}
		if !d.in.Scan() {
			d.err = qverr.New(qverr.Inval, "the answers end before %q", question)
			if err := d.in.Err(); err != nil {
				d.err = qverr.New(qverr.IO, "read the answers: %w", err)
			}
			return ""
		}
		if s := strings.TrimSpace(d.in.Text()); s != "" {
			return s
		}
		if def != "" {
			return def
		}
	}
	return ""
}

func (d *dialogue) number(question string, def int) int {
	for d.err == nil {
		n, err := strconv.Atoi(d.text(question, strconv.Itoa(def)))
		if err == nil && n > 0 {
			return n
		}
		if d.err == nil {
			fmt.Fprintln(d.out, "a number of 1 or more, please")
		}
	}
	return 0
}
