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
			if a.output == "table" {
				a.output = "json"
			}
			return a.print(ans.raw, nil)
		},
	}
	cmd.Flags().StringVar(&nonce, "nonce", "", "16 to 64 bytes in hexadecimal, chosen for this once")
	return cmd
}

func (a *app) attestCmd() *cobra.Command {
	return group("attest", "Check what nodes prove about their boot", a.attestVerifyCmd())
}

// proof is what the flags of attest verify say.
type proof struct {
	nonce, identity string
	uki, bundle     string
	keys, build     string
	allowed         []int
	report          string
}

func (a *app) attestVerifyCmd() *cobra.Command {
	var p proof
	cmd := &cobra.Command{
		Use: "verify --uki FILE|--bundle FILE --nonce HEX REPORT", Short: "Check a report of system attest, without the node", Args: exactArgs(1),
		Long: `Checks a report: the signature of the node's identity, the nonce, the TPM's signature, the event log
against the registers, and PCR 11 against the system that should have booted. All that is wrong is named.
--identity is the one that "system info" showed when the node was set up; without it, anybody's is taken.
A bundle's signature is checked by the keys in --keys.`,
		Example: "  quantavirt attest verify --uki quantavirt.efi --nonce 5f1c… --identity sha256:9a3e… report.json",
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
	return cmd
}

func (a *app) verify(cmd *cobra.Command, p proof) error {
	nonce, err := attest.ParseNonce(p.nonce)
	if err != nil {
		return usage(cmd, err)
	}
	if (p.uki == "") == (p.bundle == "") {
		return usage(cmd, errors.New("one of --uki and --bundle says what should have booted"))
	}
	system, err := p.system()
	if err != nil {
		return err
	}
	f, err := os.Open(p.report)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = f.Close() }()
	report, err := attest.Read(f)
	if err != nil {
		return err
	}
	checks, verdict := report.Verify(attest.Expected{Nonce: nonce, Identity: p.identity, System: system, Extended: p.allowed})
	err = a.show(checks, func(w io.Writer) {
		row(w, "CHECK", "RESULT", "DETAIL")
		for _, c := range checks {
			result := "good"
			if !c.Good {
				result = "WRONG"
			}
			row(w, c.Name, result, c.Detail)
		}
	})
	return errors.Join(verdict, err)
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
	f, err := os.Open(path)
	if err != nil {
		return ukifile.Measurement{}, qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return ukifile.Measurement{}, qverr.New(qverr.IO, "%w", err)
	}
	uki, err := ukifile.Open(f, info.Size())
	if err != nil {
		return ukifile.Measurement{}, err
	}
	return uki.Measure()
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
