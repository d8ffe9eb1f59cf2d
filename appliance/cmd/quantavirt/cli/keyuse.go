package cli

import (
	"bytes"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/pqc"
	"quantavirt/pqc/envelope"
)

// maxMessage is the largest file that is signed or verified, in bytes.
const maxMessage = 32 << 20

func (a *app) signCmd() *cobra.Command {
	var key, signature, context string
	var p spec.SignParams
	cmd := &cobra.Command{
		Use: "sign --key KEY --signature SIGNATURE FILE", Short: "Sign a file by a key of the node", Args: exactArgs(1),
		Long: `Signs a file of at most 32 MiB ("-": the standard input) by an ML-DSA or SLH-DSA key of the node's keystore. The
signature is in the encoding of its standard, as "openssl pkeyutl -verify" takes it.`,
		Example: "  quantavirt crypto sign --key release --signature image.sig image.bin",
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" || signature == "" {
				return usage(cmd, errors.New("--key and --signature are needed"))
			}
			message, err := a.readFile(args[0], maxMessage)
			if err != nil {
				return err
			}
			p.Context = hex.EncodeToString([]byte(context))
			ans, err := call[spec.Signature](a, func(c *client) (*http.Response, error) {
				return c.SignWithBody(cmd.Context(), key, &p, "application/octet-stream", bytes.NewReader(message))
			})
			if err != nil {
				return err
			}
			return a.wrote(signature, ans.value.Signature, ans.value.Algorithm+" signature by key "+ans.value.KeyID)
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "id or label of the key")
	f.StringVar(&signature, "signature", "", "the file to make with the signature")
	f.StringVar(&context, "context", "", "context string, at most 255 bytes; who verifies needs the same")
	f.StringVar(&p.Prehash, "prehash", "", "make the pre-hashed form with this hash function, SHA2-512 for example")
	f.BoolVar(&p.Deterministic, "deterministic", false, "take no fresh randomness")
	return cmd
}

// software is the cryptography of this command itself, for what needs no secret of the
// node.
func software(cmd *cobra.Command) (*pqc.Service, error) {
	return pqc.Open(cmd.Context(), pqc.Options{})
}

func (a *app) verifyCmd() *cobra.Command {
	var key, file, signature, context, prehash string
	cmd := &cobra.Command{
		Use: "verify --key KEY|--public-key FILE --signature SIGNATURE FILE", Short: "Verify the signature of a file", Args: exactArgs(1),
		Long: `Verifies a signature here: by a public key file (PEM or DER) the node is not asked at all, and by a key of
the node only for its public key.`,
		Example: "  quantavirt crypto verify --public-key release.pub --signature image.sig image.bin",
		RunE: func(cmd *cobra.Command, args []string) error {
			if signature == "" {
				return usage(cmd, errors.New("--signature is missing"))
			}
			k, err := a.theKey(cmd, key, file)
			if err != nil {
				return err
			}
			o := pqc.SignOptions{Context: []byte(context)}
			if prehash != "" {
				if o.Hash, err = pqc.ParseAlgorithm(prehash); err != nil {
					return err
				}
			}
			sig, err := a.readFile(signature, maxKeyFile)
			if err != nil {
				return err
			}
			message, err := a.readFile(args[0], maxMessage)
			if err != nil {
				return err
			}
			crypto, err := software(cmd)
			if err != nil {
				return err
			}
			v, err := crypto.Verifier(cmd.Context(), k.algorithm, k.public)
			if err != nil {
				return err
			}
			if err := v.Verify(cmd.Context(), message, sig, &o); err != nil {
				return err
			}
			return a.show(map[string]any{"valid": true, "algorithm": k.algorithm}, func(w io.Writer) {
				fmt.Fprintf(w, "%s: the %s signature is valid\n", plain(args[0]), k.algorithm)
			})
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "id or label of a key of the node")
	f.StringVar(&file, "public-key", "", "file of the public key")
	f.StringVar(&signature, "signature", "", "file of the signature")
	f.StringVar(&context, "context", "", "context string that it was signed with")
	f.StringVar(&prehash, "prehash", "", "hash function of the pre-hashed form")
	return cmd
}

func (a *app) encapsCmd() *cobra.Command {
	var key, file, ciphertext, shared string
	cmd := &cobra.Command{
		Use: "encaps --key KEY|--public-key FILE --ciphertext FILE --shared FILE", Short: "Make a shared key for the owner of an ML-KEM key", Args: noArgs,
		Long: `Makes a shared key of 32 bytes and the ciphertext that its owner recovers it from. That is done here: the
shared key goes nowhere but into its file.`,
		Example: "  quantavirt crypto encaps --key disk --ciphertext key.ct --shared key.bin",
		RunE: func(cmd *cobra.Command, _ []string) error {
			if ciphertext == "" || shared == "" {
				return usage(cmd, errors.New("--ciphertext and --shared are needed"))
			}
			k, err := a.theKey(cmd, key, file)
			if err != nil {
				return err
			}
			p, err := k.algorithm.Params()
			if err != nil {
				return err
			}
			crypto, err := software(cmd)
			if err != nil {
				return err
			}
			e, err := crypto.Encapsulator(cmd.Context(), k.algorithm, k.public)
			if err != nil {
				return err
			}
			ct := make([]byte, p.Output)
			buf, err := secret.New(p.Shared)
			if err != nil {
				return err
			}
			defer buf.Wipe()
			if err := e.Encapsulate(cmd.Context(), ct, buf.Bytes()); err != nil {
				return err
			}
			if err := newFile(shared, buf.Bytes()); err != nil {
				return err
			}
			if err := a.wrote(ciphertext, ct, k.algorithm.String()+" ciphertext"); err != nil {
				return errors.Join(err, os.Remove(shared))
			}
			return nil
		},
	}
	f := cmd.Flags()
	f.StringVar(&key, "key", "", "id or label of a key of the node")
	f.StringVar(&file, "public-key", "", "file of the public key")
	f.StringVar(&ciphertext, "ciphertext", "", "the file to make with the ciphertext")
	f.StringVar(&shared, "shared", "", "the file to make with the shared key")
	return cmd
}

func (a *app) decapsCmd() *cobra.Command {
	var key, shared string
	cmd := &cobra.Command{
		Use: "decaps --key KEY --shared FILE CIPHERTEXT", Short: "Recover a shared key by an ML-KEM key of the node", Args: exactArgs(1),
		Long: `Recovers the shared key of a ciphertext. It leaves the node in an envelope for this command. A ciphertext for
another key is no error but gives another shared key (FIPS 203).`,
		Example: "  quantavirt crypto decaps --key disk --shared key.bin key.ct",
		RunE: func(cmd *cobra.Command, args []string) error {
			if key == "" || shared == "" {
				return usage(cmd, errors.New("--key and --shared are needed"))
			}
			if _, err := os.Lstat(shared); err == nil {
				return qverr.New(qverr.Exist, "%s is there already", shared)
			}
			ct, err := a.readFile(args[0], maxKeyFile)
			if err != nil {
				return err
			}
			buf, err := a.receive(envelope.Shared, func(c *client, recipient []byte) (*http.Response, error) {
				return c.Decapsulate(cmd.Context(), key, spec.Decapsulate{Ciphertext: ct, Recipient: recipient})
			})
			if err != nil {
				return err
			}
			defer buf.Wipe()
			return a.wrote(shared, buf.Bytes(), "shared key")
		},
	}
	cmd.Flags().StringVar(&key, "key", "", "id or label of the key")
	cmd.Flags().StringVar(&shared, "shared", "", "the file to make with the shared key")
	return cmd
}
