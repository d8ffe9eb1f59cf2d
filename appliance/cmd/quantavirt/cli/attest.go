package cli

import (
	"errors"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/bundle"
	"quantavirt/internal/qverr"
	"quantavirt/internal/ukifile"
	"quantavirt/pqc/attest"
)

// systemAttestCmd fetches a report. It is JSON, whatever the form of the output.
func (a *app) systemAttestCmd() *cobra.Command {
	var nonce string
	cmd := &cobra.Command{
		Use: "attest --nonce HEX", Short: "Have the node prove what it booted", Args: noArgs,
		Long: `Prints a report in JSON: the TPM's registers, its signature over them and the nonce, the firmware's event
log, and the signature of the node's identity. "quantavirt attest verify" checks it.`,
		Example: "  quantavirt system attest --nonce $(openssl rand -hex 32) > report.json",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if _, err := attest.ParseNonce(nonce); err != nil {
				return usage(cmd, err)
			}
			ans, err := call[attest.Report](a, func(c *client) (*http.Response, error) {
				return c.Attest(cmd.Context(), spec.AttestRequest{Nonce: nonce})
			})
			if err != nil {
				return err
			}
			return a.printReport(ans.raw)
		},
	}
	cmd.Flags().StringVar(&nonce, "nonce", "", "16 to 64 bytes in hexadecimal, chosen for this once")
	return cmd
}

// vmAttestCmd fetches a report about a VM, in JSON as systemAttestCmd does.
func (a *app) vmAttestCmd() *cobra.Command {
	var nonce string
	cmd := &cobra.Command{
		Use: "attest NAME --nonce HEX", Short: "Have the node prove what a running VM was started with", Args: exactArgs(1), ValidArgsFunction: a.vmNames,
		Long: `Prints a report in JSON: the machine, the digests of kernel, initrd and disks, the command line and the
digest of the configuration, signed by the node's identity together with the nonce, and the node's own report where
it has a TPM. "quantavirt attest verify" checks it. The VM must have been started with pqc.attestation=true.`,
		Example: "  quantavirt vm attest web --nonce $(openssl rand -hex 32) > report.json",
		RunE: func(cmd *cobra.Command, args []string) error {
			if _, err := attest.ParseNonce(nonce); err != nil {
				return usage(cmd, err)
			}
			ans, err := call[attest.VMReport](a, func(c *client) (*http.Response, error) {
				return c.AttestVM(cmd.Context(), args[0], spec.AttestRequest{Nonce: nonce})
			})
			if err != nil {
				return err
			}
			return a.printReport(ans.raw)
		},
	}
	cmd.Flags().StringVar(&nonce, "nonce", "", "16 to 64 bytes in hexadecimal, chosen for this once")
	return cmd
}

// printReport prints a report as JSON, whatever the form of the output is by default.
func (a *app) printReport(raw []byte) error {
	if a.output == "table" {
		a.output = "json"
	}
	return a.print(raw, nil)
}

func (a *app) attestCmd() *cobra.Command {
	return group("attest", "Check what nodes prove about their boot and their VMs", a.attestVerifyCmd())
}

// proof is what the flags of attest verify say.
type proof struct {
	nonce, identity string
	uki, bundle     string
	keys, build     string
	allowed         []int
	anyHost         bool
	report          string

	policy, config, kernel, initrd, cmdline string
}

// vmFlags are those that only a report about a VM can be held against.
var vmFlags = []string{"policy", "config", "kernel", "initrd", "cmdline", "any-host"}

func (a *app) attestVerifyCmd() *cobra.Command {
	var p proof
	cmd := &cobra.Command{
		Use: "verify --nonce HEX [--uki FILE|--bundle FILE] [flags] REPORT", Short: "Check a report of system attest or vm attest, without the node", Args: exactArgs(1),
		Long: `Checks a report of a node: the signature of the node's identity, the nonce, the TPM's signature, the event log
against the registers, and PCR 11 against the system that should have booted. All that is wrong is named.
--identity is the one that "system info" showed when the node was set up; without it, anybody's is taken.
A bundle's signature is checked by the keys in --keys.

A report about a VM is held against --policy, --kernel, --initrd, --cmdline and --config as well; kernel, initrd and
command line must be said. The policy is a JSON object with any of the members of "measures" in a report; flags add to it.
--any-host leaves out what the node booted, as on one without a TPM.`,
		Example: `  quantavirt attest verify --uki quantavirt.efi --nonce 5f1c… --identity sha256:9a3e… report.json
  quantavirt attest verify --uki quantavirt.efi --nonce 5f1c… --identity sha256:9a3e… \
    --kernel vmlinuz --initrd initrd.img --cmdline "console=hvc0 root=/dev/vda ro" report.json`,
		RunE: func(cmd *cobra.Command, args []string) error {
			p.report = args[0]
			return a.verify(cmd, p)
		},
	}
	f := cmd.Flags()
	f.StringVar(&p.nonce, "nonce", "", "the nonce that the node was asked with")
	f.StringVar(&p.identity, "identity", "", "the node's identity, sha256:HEX")
	f.StringVar(&p.uki, "uki", "", "unified kernel image that should have booted")
	f.StringVar(&p.bundle, "bundle", "", "update bundle that holds it")
	f.StringVar(&p.keys, "keys", "", "directory of public keys (*.pub) that the bundle may be signed by")
	f.StringVar(&p.build, "build", "virtual", "which build of the bundle: virtual or hardware")
	f.IntSliceVar(&p.allowed, "allow", nil, "registers of 12 and 13 that may hold something, such as what a VM's host adds to the command line")
	f.StringVar(&p.policy, "policy", "", "VM: file with the measures that it should have")
	f.StringVar(&p.kernel, "kernel", "", "VM: file of the kernel that it should run")
	f.StringVar(&p.initrd, "initrd", "", `VM: file of its initrd, "" for none`)
	f.StringVar(&p.cmdline, "cmdline", "", "VM: its command line")
	f.StringVar(&p.config, "config", "", "VM: file of its configuration, as vm export writes it")
	f.BoolVar(&p.anyHost, "any-host", false, "VM: do not look at what the node booted")
	return cmd
}

func (a *app) verify(cmd *cobra.Command, p proof) error {
	nonce, err := attest.ParseNonce(p.nonce)
	if err != nil {
		return usage(cmd, err)
	}
	data, err := p.read()
	if err != nil {
		return err
	}
	system, err := p.expected(cmd, nonce)
	if err != nil {
		return err
	}
	var checks []attest.Check
	var verdict error
	if attest.IsVM(data) {
		checks, verdict = p.verifyVM(cmd, data, nonce, system)
	} else {
		checks, verdict = p.verifyNode(cmd, data, system)
	}
	if checks == nil {
		return verdict
	}
	err = a.show(checks, func(w io.Writer) {
		row(w, "CHECK", "RESULT", "DETAIL")
		for _, c := range checks {
			result := "good"
			if c.Skipped {
				result = "-"
			}
			if !c.Good {
				result = "WRONG"
			}
			row(w, c.Name, result, c.Detail)
		}
	})
	return errors.Join(verdict, err)
}

func (p proof) read() ([]byte, error) {
	f, err := os.Open(p.report)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = f.Close() }()
	return attest.Load(f)
}

// expected is what the node should have booted; nil with --any-host.
func (p proof) expected(cmd *cobra.Command, nonce []byte) (*attest.Expected, error) {
	given := 0
	for _, is := range []bool{p.uki != "", p.bundle != "", p.anyHost} {
		if is {
			given++
		}
	}
	if given != 1 {
		return nil, usage(cmd, errors.New("one of --uki and --bundle says what the node should have booted, or --any-host for a VM"))
	}
	if p.anyHost {
		return nil, nil
	}
	system, err := p.system()
	if err != nil {
		return nil, err
	}
	return &attest.Expected{Nonce: nonce, Identity: p.identity, System: system, Extended: p.allowed}, nil
}

func (p proof) verifyNode(cmd *cobra.Command, data []byte, want *attest.Expected) ([]attest.Check, error) {
	for _, name := range vmFlags {
		if cmd.Flags().Changed(name) {
			return nil, usage(cmd, errors.New("--"+name+" is for the report about a VM, and this is one of a node"))
		}
	}
	report, err := attest.Parse(data)
	if err != nil {
		return nil, err
	}
	return report.Verify(*want)
}

func (p proof) verifyVM(cmd *cobra.Command, data, nonce []byte, host *attest.Expected) ([]attest.Check, error) {
	policy, err := p.measures(cmd)
	if err != nil {
		return nil, err
	}
	report, err := attest.ParseVM(data)
	if err != nil {
		return nil, err
	}
	return report.Verify(attest.ExpectedVM{Nonce: nonce, Identity: p.identity, Host: host, Policy: policy})
}

// system measures what should have booted.
func (p proof) system() (ukifile.Measurement, error) {
	path := p.uki
	if p.bundle != "" {
		tmp, err := p.unpack()
		if err != nil {
			return ukifile.Measurement{}, err
		}
		defer func() { _ = os.Remove(tmp) }()
		path = tmp
	}
	return ukifile.MeasureFile(path)
}

// unpack writes the system of a bundle, which was verified then, to a file.
func (p proof) unpack() (path string, err error) {
	if p.keys == "" {
		return "", qverr.New(qverr.Inval, "--keys is missing: a bundle that nobody signed says nothing").WithHint("the keys are those of the image's builder, in build/keys")
	}
	keys, err := bundle.LoadKeys(p.keys)
	if err != nil {
		return "", err
	}
	in, err := os.Open(p.bundle)
	if err != nil {
		return "", qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = in.Close() }()
	r, err := bundle.NewReader(in, keys)
	if err != nil {
		return "", err
	}
	want, ok := r.Manifest().UKI(p.build)
	if !ok {
		return "", qverr.New(qverr.NoEnt, "the bundle has no system of the build %q", p.build)
	}
	for {
		file, err := r.Next()
		if err != nil {
			return "", err
		}
		if file.Name != want.Name {
			if err := r.Copy(io.Discard); err != nil {
				return "", err
			}
			continue
		}
		out, err := os.CreateTemp("", "quantavirt-*.efi")
		if err != nil {
			return "", qverr.New(qverr.IO, "%w", err)
		}
		if err := errors.Join(r.Copy(out), out.Close()); err != nil {
			return "", errors.Join(err, os.Remove(out.Name()))
		}
		return out.Name(), nil
	}
}
