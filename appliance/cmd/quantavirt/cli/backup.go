package cli

import (
	"context"
	"encoding/base64"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"strings"

	"github.com/spf13/cobra"
	"golang.org/x/term"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// passphraseEnv is for scripts.
const passphraseEnv = "QUANTAVIRT_PASSPHRASE"

func (a *app) backupCmd() *cobra.Command {
	var output, secretFile string
	cmd := &cobra.Command{
		Use: "backup --output FILE", Short: "Save the node's state and keystore as one encrypted file", Args: noArgs,
		Long: `Save the node's state, keystore and configurations as one file, encrypted with a passphrase:
of --passphrase-file, else of QUANTAVIRT_PASSPHRASE, else asked for on the terminal. The contents
of images and disks are not in it, only their names and hashes.`,
		RunE: func(cmd *cobra.Command, _ []string) error {
			if output == "" {
				return usage(cmd, errors.New("--output is missing"))
			}
			secret, err := a.passphrase(secretFile, true)
			if err != nil {
				return err
			}
			n, err := a.backUp(cmd.Context(), output, secret)
			if err != nil {
				return err
			}
			return a.show(map[string]any{"file": output, "size_bytes": n}, func(w io.Writer) { fmt.Fprintf(w, "%s: %s\n", output, size(n)) })
		},
	}
	cmd.Flags().StringVar(&output, "output", "", "the file to make; it must not be there yet")
	cmd.Flags().StringVar(&secretFile, "passphrase-file", "", "a file whose first line is the passphrase")
	return cmd
}

// backUp makes the file.
func (a *app) backUp(ctx context.Context, output, secret string) (n int64, err error) {
	return saveFile(output, func(w io.Writer) error {
		c, err := a.node()
		if err != nil {
			return err
		}
		resp, err := c.BackUp(ctx, spec.BackupRequest{Passphrase: secret})
		if err := c.check(resp, err); err != nil {
			return err
		}
		defer func() { _ = resp.Body.Close() }()
		if _, err := io.Copy(w, resp.Body); err != nil {
			return c.unreachable(fmt.Errorf("the backup is cut off: %w", err))
		}
		return nil
	})
}

func (a *app) restoreCmd() *cobra.Command {
	var secretFile string
	cmd := &cobra.Command{
		Use: "restore FILE", Short: "Bring a backup back; no VM may run", Args: exactArgs(1),
		Long: `Bring a backup back: state, tokens, keystore and configurations become those of the backup, and
the daemon starts anew. No VM may run. All of the file is checked before anything is replaced.
Afterwards the tokens and the authority of the backup count.`,
		RunE: func(cmd *cobra.Command, args []string) error {
			secret, err := a.passphrase(secretFile, false)
			if err != nil {
				return err
			}
			up, err := a.openUpload(args[0], "backup")
			if err != nil {
				return err
			}
			defer up.close()
			p := &spec.RestoreParams{XPassphrase: base64.StdEncoding.EncodeToString([]byte(secret))}
			ans, err := call[spec.Restored](a, func(c *client) (*http.Response, error) {
				return c.RestoreWithBody(cmd.Context(), p, "application/octet-stream", up.body, up.edit)
			})
			up.bar.end()
			if err != nil {
				return err
			}
			r := ans.value
			return a.print(ans.raw, func(w io.Writer) {
				fmt.Fprintf(w, "The state of %s of %s UTC is restored; the daemon starts anew with it.\n", plain(r.Hostname), when(r.CreatedAt))
			})
		},
	}
	cmd.Flags().StringVar(&secretFile, "passphrase-file", "", "a file whose first line is the passphrase")
	return cmd
}

// passphrase gets the passphrase; a new one is asked for twice.
func (a *app) passphrase(file string, fresh bool) (string, error) {
	if file != "" {
		data, err := os.ReadFile(file)
		if err != nil {
			return "", qverr.New(qverr.CodeOf(err), "passphrase: %w", err)
		}
		line, _, _ := strings.Cut(string(data), "\n")
		return strings.TrimSuffix(line, "\r"), nil
	}
	if s := a.Getenv(passphraseEnv); s != "" {
		return s, nil
	}
	in, ok := a.In.(*os.File)
	if !ok || !terminal(a.In) {
		return "", qverr.New(qverr.Inval, "there is no terminal to ask for the passphrase").
			WithHint("give it with --passphrase-file or %s", passphraseEnv)
	}
	ask := func(what string) (string, error) {
		fmt.Fprint(a.Err, what)
		b, err := term.ReadPassword(int(in.Fd()))
		fmt.Fprintln(a.Err)
		if err != nil {
			return "", qverr.New(qverr.CodeOf(err), "read the passphrase: %w", err)
		}
		return string(b), nil
	}
	first, err := ask("Passphrase: ")
	if err != nil || !fresh {
		return first, err
	}
	again, err := ask("Again: ")
	if err == nil && again != first {
		err = qverr.New(qverr.Inval, "the two passphrases differ")
	}
	return first, err
}
