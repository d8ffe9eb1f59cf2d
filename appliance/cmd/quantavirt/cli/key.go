package cli

import (
	"errors"
	"fmt"
	"io"
	"net/http"
	"strings"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

func (a *app) keyCmd() *cobra.Command {
	list := &cobra.Command{
		Use: "list", Short: "List the keys of the keystore", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.KeyList](a, func(c *client) (*http.Response, error) { return c.ListKeys(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "ID", "LABEL", "ALGORITHM", "USAGE", "STATE", "VERSION", "EXPIRES", "USES")
				for _, k := range ans.value.Items {
					row(w, k.ID, k.Label, k.Algorithm, joined(k.Usage), k.State, k.Version, first(whenPtr(k.ExpiresAt), "never"), k.Uses)
				}
			})
		},
	}
	show := &cobra.Command{
		Use: "show KEY", Short: "Show a key, by its id or label", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			return a.keyAnswer(func(c *client) (*http.Response, error) { return c.GetKey(cmd.Context(), args[0]) })
		},
	}
	destroy := &cobra.Command{
		Use: "destroy KEY", Short: "Wipe a key; nothing brings it back", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) error {
			_, err := call[struct{}](a, func(c *client) (*http.Response, error) { return c.DestroyKey(cmd.Context(), args[0]) })
			if err != nil {
				return err
			}
			return a.show(map[string]string{"destroyed": args[0]}, func(w io.Writer) { fmt.Fprintf(w, "key %s: destroyed\n", plain(args[0])) })
		},
	}
	return group("key", "Keys of the node", a.keyGenerateCmd(), list, show, a.keyRotateCmd(), a.keyExpireCmd(), a.keyImportCmd(), a.keyExportCmd(), destroy)
}

// keyAnswer prints the key that a request answers with.
func (a *app) keyAnswer(do func(*client) (*http.Response, error)) error {
	ans, err := call[spec.Key](a, do)
	if err != nil {
		return err
	}
	return a.print(ans.raw, func(w io.Writer) { keyTable(w, ans.value) })
}

func keyTable(w io.Writer, k spec.Key) {
	row(w, "ID", k.ID)
	row(w, "Label", k.Label)
	row(w, "Algorithm", k.Algorithm)
	row(w, "Usage", joined(k.Usage))
	row(w, "State", k.State)
	row(w, "Version", k.Version)
	row(w, "Origin", k.Origin)
	if k.Card != "" {
		row(w, "On card", k.Card)
	}
	row(w, "Extractable", yes(k.Extractable))
	row(w, "Created", when(k.CreatedAt))
	row(w, "Expires", first(whenPtr(k.ExpiresAt), "never"))
	if k.RetiredAt != nil {
		row(w, "Retired", whenPtr(k.RetiredAt))
		row(w, "Replaced by", k.ReplacedBy)
	}
	if k.Replaces != "" {
		row(w, "Replaces", k.Replaces)
	}
	row(w, "Uses", k.Uses)
	row(w, "Public key", size(int64(len(k.PublicKey))))
}

func joined(list []spec.KeyUsage) string {
	var names []string
	for _, u := range list {
		names = append(names, string(u))
	}
	return strings.Join(names, ",")
}

// keyFlags are what generate and import have in common.
type keyFlags struct {
	label       string
	usage       []string
	expires     string
	extractable bool
}

func (k *keyFlags) register(cmd *cobra.Command) {
	f := cmd.Flags()
	f.StringVar(&k.label, "label", "", "a name for the key, which follows it when it is rotated")
	f.StringSliceVar(&k.usage, "usage", nil, "sign, verify, encaps, decaps (default: all that the algorithm can)")
	f.StringVar(&k.expires, "expires", "", "when it expires: 2027-01-31, 2027-01-31T12:00:00Z, or in a time such as 720h")
	f.BoolVar(&k.extractable, "extractable", false, "let it be exported")
}

func (k *keyFlags) usages() []spec.KeyUsage {
	var out []spec.KeyUsage
	for _, u := range k.usage {
		out = append(out, spec.KeyUsage(u))
	}
	return out
}

// expiry reads a date, a time or a duration from now; nil for "".
func expiry(text string, now time.Time) (*time.Time, error) {
	if text == "" {
		return nil, nil
	}
	if d, err := time.ParseDuration(text); err == nil {
		t := now.Add(d).UTC().Truncate(time.Second)
		return &t, nil
	}
	for _, form := range []string{time.RFC3339, time.DateOnly} {
		if t, err := time.Parse(form, text); err == nil {
			return &t, nil
		}
	}
	return nil, qverr.New(qverr.Inval, "%q is no time: give 2027-01-31, 2027-01-31T12:00:00Z or a duration such as 720h", text)
}

func (a *app) keyGenerateCmd() *cobra.Command {
	var k keyFlags
	var algorithm string
	var onCard bool
	cmd := &cobra.Command{
		Use: "generate --algorithm NAME", Short: "Make a key pair in the keystore", Args: noArgs,
		Example: "  quantavirt crypto key generate --algorithm ML-DSA-65 --label release --expires 8760h",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if algorithm == "" {
				return usage(cmd, errors.New("--algorithm is missing"))
			}
			at, err := expiry(k.expires, time.Now())
			if err != nil {
				return err
			}
			in := spec.KeyGenerate{Algorithm: named(algorithm), Label: k.label, Usage: k.usages(), ExpiresAt: at, Extractable: k.extractable, OnCard: onCard}
			return a.keyAnswer(func(c *client) (*http.Response, error) { return c.GenerateKey(cmd.Context(), in) })
		},
	}
	k.register(cmd)
	cmd.Flags().StringVar(&algorithm, "algorithm", "", "ML-KEM-512, -768, -1024, ML-DSA-44, -65, -87, or SLH-DSA-SHA2-128s, -128f, -192s, -192f, -256s, -256f")
	cmd.Flags().BoolVar(&onCard, "on-card", false, "make it on the QUAC 100, which it never leaves")
	_ = cmd.RegisterFlagCompletionFunc("algorithm", cobra.FixedCompletions(keyAlgorithms(), cobra.ShellCompDirectiveNoFileComp))
	return cmd
}

// keyAlgorithms are the names of those that keys are made for.
func keyAlgorithms() []string {
	var names []string
	for _, p := range pqc.Algorithms() {
		if p.Family == pqc.FamilyKEM || p.Family == pqc.FamilySignature {
			names = append(names, p.Name)
		}
	}
	return names
}

// named is the name as its standard writes it; what is no name stays as it is.
func named(algorithm string) string {
	for _, name := range keyAlgorithms() {
		if strings.EqualFold(name, algorithm) {
			return name
		}
	}
	return algorithm
}

func (a *app) keyRotateCmd() *cobra.Command {
	var expires string
	cmd := &cobra.Command{
		Use: "rotate KEY", Short: "Make a new key in the place of one", Args: exactArgs(1),
		Long: `Makes a new key with the algorithm, label and usage of the old one, which is retired: it signs no more, and
recovers shared keys until it expires or is destroyed.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := expiry(expires, time.Now())
			if err != nil {
				return err
			}
			return a.keyAnswer(func(c *client) (*http.Response, error) {
				return c.RotateKey(cmd.Context(), args[0], spec.KeyRotate{ExpiresAt: at})
			})
		},
	}
	cmd.Flags().StringVar(&expires, "expires", "", "when the new one expires (default: it lives as long as the old one was to)")
	return cmd
}

func (a *app) keyExpireCmd() *cobra.Command {
	var at string
	var in spec.KeyExpire
	cmd := &cobra.Command{
		Use: "expire KEY [--at TIME | --never]", Short: "Let a key expire, now or at a time", Args: exactArgs(1),
		RunE: func(cmd *cobra.Command, args []string) (err error) {
			if at != "" && in.Never {
				return usage(cmd, errors.New("one of --at and --never"))
			}
			if in.At, err = expiry(at, time.Now()); err != nil {
				return err
			}
			return a.keyAnswer(func(c *client) (*http.Response, error) { return c.ExpireKey(cmd.Context(), args[0], in) })
		},
	}
	cmd.Flags().StringVar(&at, "at", "", "a date, a time or a duration from now (default: now)")
	cmd.Flags().BoolVar(&in.Never, "never", false, "it does not expire")
	return cmd
}
