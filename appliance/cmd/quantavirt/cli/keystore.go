package cli

import (
	"context"
	"io"
	"net/http"
	"strings"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/pqc/envelope"
)

func (a *app) keystoreCmd() *cobra.Command {
	status := &cobra.Command{
		Use: "status", Short: "Show how the keystore is, and what keeps its secrets", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			return a.keystoreAnswer(func(c *client) (*http.Response, error) { return c.GetKeystore(cmd.Context()) })
		},
	}
	return group("keystore", "The file that keeps the node's keys", status, a.keystoreInitCmd(), a.keystoreUnlockCmd(), a.keystorePassphraseCmd())
}

func (a *app) keystoreAnswer(do func(*client) (*http.Response, error)) error {
	ans, err := call[spec.Keystore](a, do)
	if err != nil {
		return err
	}
	return a.print(ans.raw, func(w io.Writer) {
		k := ans.value
		row(w, "State", k.State)
		if k.State == spec.KeystoreStateOpen {
			row(w, "Keys", k.Keys)
			row(w, "Generation", k.Generation)
			row(w, "Opened by", strings.Join(k.OpenedBy, ", "))
			row(w, "Older files found by", map[string]string{"tpm": "the TPM's counter", "state": "the node's state file"}[k.Counter])
		}
		if k.Problem.Code != 0 {
			row(w, "Problem", problem(k.Problem))
			row(w, "Recovery", k.Problem.Recovery)
		}
		row(w, "Memory", memory(k.Memory))
	})
}

func memory(m spec.SecretMemory) string {
	var list []string
	for _, one := range []struct {
		holds     bool
		yes, lack string
	}{
		{m.Locked, "locked", "NOT locked"}, {m.NoCoreDump, "no core dumps", "core dumps POSSIBLE"},
		{m.NoSwap, "no swap", "the node HAS swap"}, {m.Wiped, "wiped after use", "NOT wiped after use"},
	} {
		if one.holds {
			list = append(list, one.yes)
		} else {
			list = append(list, one.lack)
		}
	}
	return strings.Join(list, ", ")
}

const passphraseHelp = `The passphrase is that of --passphrase-file, else of QUANTAVIRT_PASSPHRASE, else asked for on the terminal. It goes to
the node in an envelope that only its keystore opens.`

// sealedPassphrase gets the passphrase and puts it into an envelope for the node.
func (a *app) sealedPassphrase(ctx context.Context, file string, fresh bool) ([]byte, error) {
	text, err := a.passphrase(file, fresh)
	if err != nil {
		return nil, err
	}
	if text == "" {
		return nil, qverr.New(qverr.Inval, "the passphrase is empty")
	}
	return a.sealFor(ctx, envelope.Passphrase, []byte(text))
}

func (a *app) keystoreInitCmd() *cobra.Command {
	var secretFile string
	var in spec.KeystoreInit
	var none bool
	cmd := &cobra.Command{
		Use: "init", Short: "Make the node's keystore", Args: noArgs,
		Long: `Makes an empty keystore. On a node whose boot is measured by a TPM the TPM opens it, and with --no-passphrase the
TPM alone does; a passphrase besides opens it after the TPM was cleared or the board replaced. Without
a TPM the passphrase is needed after each start of the daemon. With --sealed-by card a QUAC 100 opens it instead, by a
key that never leaves that very card: whoever has the card and the file has the keys.

` + passphraseHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if !none {
				var err error
				if in.Passphrase, err = a.sealedPassphrase(cmd.Context(), secretFile, true); err != nil {
					return err
				}
			}
			return a.keystoreAnswer(func(c *client) (*http.Response, error) { return c.InitKeystore(cmd.Context(), in) })
		},
	}
	cmd.Flags().StringVar(&secretFile, "passphrase-file", "", "a file whose first line is the passphrase")
	cmd.Flags().BoolVar(&none, "no-passphrase", false, "let the TPM or the card alone open it")
	cmd.Flags().StringVar((*string)(&in.SealedBy), "sealed-by", "", "what keeps the master key beside a passphrase: tpm, card, or passphrase for nothing (default: tpm if the boot is measured)")
	cmd.Flags().BoolVar(&in.Replace, "replace", false, "put a keystore aside that is refused; its keys are lost to the node")
	return cmd
}

func (a *app) keystoreUnlockCmd() *cobra.Command {
	var secretFile string
	var recovers bool
	cmd := &cobra.Command{
		Use: "unlock", Short: "Open the keystore by its passphrase", Args: noArgs,
		Long: `Opens the keystore. With --recover the file that is there is taken as the newest one and sealed for this node: after a
backup was restored, the TPM cleared or the board replaced. Do that only if you know why it is older than the node remembers.

` + passphraseHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sealed, err := a.sealedPassphrase(cmd.Context(), secretFile, false)
			if err != nil {
				return err
			}
			return a.keystoreAnswer(func(c *client) (*http.Response, error) {
				return c.UnlockKeystore(cmd.Context(), spec.KeystoreUnlock{Passphrase: sealed, Recover: recovers})
			})
		},
	}
	cmd.Flags().StringVar(&secretFile, "passphrase-file", "", "a file whose first line is the passphrase")
	cmd.Flags().BoolVar(&recovers, "recover", false, "take the file as the newest, and seal it for this node")
	return cmd
}

func (a *app) keystorePassphraseCmd() *cobra.Command {
	var secretFile string
	cmd := &cobra.Command{
		Use: "passphrase", Short: "Set the passphrase of the open keystore", Args: noArgs, Long: "Sets the passphrase, in place of the one before.\n\n" + passphraseHelp,
		RunE: func(cmd *cobra.Command, _ []string) error {
			sealed, err := a.sealedPassphrase(cmd.Context(), secretFile, true)
			if err != nil {
				return err
			}
			return a.keystoreAnswer(func(c *client) (*http.Response, error) {
				return c.SetKeystorePassphrase(cmd.Context(), spec.KeystorePassphrase{Passphrase: sealed})
			})
		},
	}
	cmd.Flags().StringVar(&secretFile, "passphrase-file", "", "a file whose first line is the passphrase")
	return cmd
}
