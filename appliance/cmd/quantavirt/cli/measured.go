package cli

import (
	"bufio"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
)

// trustRows are those of system info about what was booted.
func trustRows(w io.Writer, t spec.Trust) {
	row(w, "Secure Boot", t.SecureBoot)
	tpm := "none"
	if t.Tpm {
		tpm = t.TpmMaker
	}
	row(w, "TPM", tpm)
	if t.Tpm {
		row(w, "Measured boot", measuredBoot(t))
	}
	if len(t.SealedFor) > 0 {
		row(w, "Data sealed for", strings.Join(t.SealedFor, ", "))
	}
	row(w, "Identity", t.Identity)
	for _, p := range t.Problems {
		row(w, "  lacking", problem(p))
	}
}

func measuredBoot(t spec.Trust) string {
	var said []string
	switch {
	case t.Pcr11Expected != "" && t.Pcr11Expected == t.Pcr11:
		said = append(said, "PCR 11 is that of the running slot's file")
	case t.Pcr11Expected != "":
		said = append(said, "PCR 11 is not that of the running slot's file")
	default:
		said = append(said, "PCR 11 is "+t.Pcr11)
	}
	switch {
	case t.LogMatches:
		said = append(said, fmt.Sprintf("%d events of the firmware lead to the TPM's values", t.Events))
	case len(t.PcrsDiffer) > 0:
		said = append(said, fmt.Sprintf("the firmware's events do not lead to the values of PCR %s", strings.Trim(fmt.Sprint(t.PcrsDiffer), "[]")))
	}
	return strings.Join(said, "; ")
}

func (a *app) measurementsCmd() *cobra.Command {
	return &cobra.Command{
		Use: "measurements", Short: "Show the TPM's registers and the events of this boot", Args: noArgs,
		RunE: func(cmd *cobra.Command, _ []string) error {
			ans, err := call[spec.Measurements](a, func(c *client) (*http.Response, error) { return c.GetMeasurements(cmd.Context()) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				row(w, "PCR", "SHA-256", "WHAT IS MEASURED THERE")
				for _, p := range ans.value.Pcrs {
					row(w, p.Pcr, p.Sha256, p.Meaning)
				}
				io.WriteString(w, "\n")
				row(w, "PCR", "EVENT", "SHA-256", "DESCRIPTION")
				for _, e := range ans.value.Events {
					row(w, e.Pcr, strings.TrimPrefix(e.Type, "EV_"), e.Sha256[:16]+"…", e.Description)
				}
			})
		},
	}
}

// recoveryKey is what was given, or else asked for; it is not shown on a terminal.
func (a *app) recoveryKey(given string) (string, error) {
	if given == "" && terminal(a.In) {
		fmt.Fprint(a.Err, "Recovery key: ")
		text, err := term.ReadPassword(int(a.In.(*os.File).Fd()))
		fmt.Fprintln(a.Err)
		if err != nil {
			return "", qverr.New(qverr.IO, "read the recovery key: %w", err)
		}
		given = string(text)
	} else if given == "" || given == "-" {
		line, err := bufio.NewReader(io.LimitReader(a.In, 1<<10)).ReadString('\n')
		if err != nil && err != io.EOF {
			return "", qverr.New(qverr.IO, "read the recovery key: %w", err)
		}
		given = line
	}
	key, err := sealed.ParseRecoveryKey(given)
	return string(key), err
}

func (a *app) unlockCmd() *cobra.Command {
	var given string
	cmd := &cobra.Command{
		Use: "unlock", Short: "Open the encrypted data volume with its recovery key", Args: noArgs,
		Long: `Opens the encrypted data volume if it stayed shut because what booted is not what it is sealed for.
Without --recovery-key the key is asked for, or read from standard input. The management daemon
starts anew on the volume, so the API is away for a moment.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key, err := a.recoveryKey(given)
			if err != nil {
				return err
			}
			ans, err := call[struct{}](a, func(c *client) (*http.Response, error) {
				return c.Unlock(cmd.Context(), spec.UnlockRequest{RecoveryKey: key})
			})
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				fmt.Fprintln(w, "The data volume is open; the management daemon starts anew on it.")
				fmt.Fprintln(w, "If this boot is as it should be: quantavirt system reseal --recovery-key …")
			})
		},
	}
	cmd.Flags().StringVar(&given, "recovery-key", "", `the key; "-" reads it from standard input`)
	return cmd
}

func (a *app) resealCmd() *cobra.Command {
	var given string
	cmd := &cobra.Command{
		Use: "reseal", Short: "Seal the encrypted data volume for this boot and the systems of all slots", Args: noArgs,
		Long: `Seals the data volume's key for what runs now, and for the systems of all slots, in place of what it was
sealed for. If it was opened with the recovery key, that is needed here too.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			var in spec.ResealRequest
			if given != "" {
				key, err := a.recoveryKey(given)
				if err != nil {
					return err
				}
				in.RecoveryKey = key
			}
			ans, err := call[spec.Sealing](a, func(c *client) (*http.Response, error) { return c.Reseal(cmd.Context(), in) })
			if err != nil {
				return err
			}
			return a.print(ans.raw, func(w io.Writer) {
				fmt.Fprintf(w, "The data volume opens by itself for: %s\n", plain(strings.Join(ans.value.SealedFor, ", ")))
			})
		},
	}
	cmd.Flags().StringVar(&given, "recovery-key", "", `the key; "-" reads it from standard input`)
	return cmd
}

func (a *app) recoveryKeyCmd() *cobra.Command {
	return &cobra.Command{
		Use: "recovery-key", Short: "Make a recovery key for the encrypted data volume, in place of the one before", Args: noArgs,
		Long: `Makes a recovery key and has it open the encrypted data volume from now on; one that was made before opens
it no more. The key is shown this once and kept nowhere. The TPM must open the volume in this boot.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			key := sealed.NewRecoveryKey()
			if _, err := call[struct{}](a, func(c *client) (*http.Response, error) {
				return c.SetRecoveryKey(cmd.Context(), spec.RecoveryKeyRequest{RecoveryKey: key})
			}); err != nil {
				return err
			}
			a.showRecoveryKey(key)
			return nil
		},
	}
}

// showRecoveryKey is the only time that anybody sees it.
func (a *app) showRecoveryKey(key string) {
	fmt.Fprintf(a.Err, "The recovery key of the data volume, shown this once. Keep it away from the machine:\n\n    %s\n\n", key)
}
