package cli

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"os"
	"path/filepath"
	"time"

	"github.com/spf13/cobra"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
	"quantavirt/pqc"
	"quantavirt/pqc/envelope"
	"quantavirt/pqc/keyfile"
)

// maxKeyFile bounds a key file, in bytes.
const maxKeyFile = 64 << 10

// readFile reads a file of at most limit bytes; "-" is the standard input.
func (a *app) readFile(path string, limit int64) ([]byte, error) {
	in := a.In
	if path != "-" {
		f, err := os.Open(path)
		if err != nil {
			return nil, qverr.New(qverr.CodeOf(err), "%w", err)
		}
		defer func() { _ = f.Close() }()
		in = f
	}
	data, err := io.ReadAll(io.LimitReader(in, limit+1))
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "read %s: %w", path, err)
	}
	if int64(len(data)) > limit {
		return nil, qverr.New(qverr.Inval, "%s has more than %d bytes", path, limit)
	}
	return data, nil
}

// newFile makes a file that its owner alone can read. QV_ERR_EXIST: there is one.
func newFile(path string, data []byte) error {
	f, err := os.OpenFile(path, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "%w", err)
	}
	_, err = f.Write(data)
	if err = errors.Join(err, f.Close()); err != nil {
		return qverr.New(qverr.CodeOf(err), "write %s: %w", path, errors.Join(err, os.Remove(path)))
	}
	return nil
}

// wrote makes a file and says so.
func (a *app) wrote(path string, data []byte, what string) error {
	if err := newFile(path, data); err != nil {
		return err
	}
	return a.show(map[string]any{"file": path, "size_bytes": len(data)}, func(w io.Writer) {
		fmt.Fprintf(w, "%s: %s, %s\n", plain(path), what, size(int64(len(data))))
	})
}

// sealFor puts a secret into an envelope for the node's keystore.
func (a *app) sealFor(ctx context.Context, purpose envelope.Purpose, plain []byte) ([]byte, error) {
	ans, err := call[spec.Keystore](a, func(c *client) (*http.Response, error) { return c.GetKeystore(ctx) })
	if err != nil {
		return nil, err
	}
	return envelope.Seal(ans.value.EnvelopeKey, purpose, plain)
}

// receive makes a request that is answered with an envelope for this command alone, and
// opens it.
func (a *app) receive(purpose envelope.Purpose, do func(c *client, recipient []byte) (*http.Response, error)) (*secret.Buffer, error) {
	r, err := envelope.NewRecipient()
	if err != nil {
		return nil, err
	}
	ans, err := call[spec.Envelope](a, func(c *client) (*http.Response, error) { return do(c, r.Public()) })
	if err != nil {
		return nil, err
	}
	return r.Open(purpose, ans.value.Envelope)
}

func (a *app) keyImportCmd() *cobra.Command {
	var k keyFlags
	var secretFile string
	cmd := &cobra.Command{
		Use: "import FILE", Short: "Bring a private key (PKCS#8) into the keystore", Args: exactArgs(1),
		Long: `Brings in a private key of ML-KEM, ML-DSA or SLH-DSA from a PKCS#8 file, DER or PEM, as OpenSSL 3.5 writes
them. An encrypted one is opened here, with the passphrase of --passphrase-file, else of
QUANTAVIRT_PASSPHRASE, else asked for. The key goes to the node in an envelope that only its keystore opens.`,
		Example: "  openssl genpkey -algorithm ML-DSA-65 -out release.pem\n  quantavirt crypto key import release.pem --label release",
		RunE: func(cmd *cobra.Command, args []string) error {
			at, err := expiry(k.expires, time.Now())
			if err != nil {
				return err
			}
			der, err := a.privateKey(args[0], secretFile)
			if err != nil {
				return err
			}
			defer clear(der)
			sealed, err := a.sealFor(cmd.Context(), envelope.Import, der)
			if err != nil {
				return err
			}
			in := spec.KeyImport{Key: sealed, Label: k.label, Usage: k.usages(), ExpiresAt: at, Extractable: k.extractable}
			return a.keyAnswer(func(c *client) (*http.Response, error) { return c.ImportKey(cmd.Context(), in) })
		},
	}
	k.register(cmd)
	cmd.Flags().StringVar(&secretFile, "passphrase-file", "", "a file whose first line is the passphrase of the key file")
	return cmd
}

// privateKey reads a key file, of any form that ParsePrivate knows, as DER.
func (a *app) privateKey(path, secretFile string) ([]byte, error) {
	data, err := a.readFile(path, maxKeyFile)
	if err != nil {
		return nil, err
	}
	defer clear(data)
	if keyfile.IsEncrypted(data) {
		text, err := a.passphrase(secretFile, false)
		if err != nil {
			return nil, err
		}
		return keyfile.DecryptPrivate(data, []byte(text))
	}
	key, err := keyfile.ParsePrivate(data)
	if err != nil {
		return nil, err
	}
	defer key.Wipe()
	return keyfile.MarshalPrivate(key)
}

// exportFlags say what of a key is exported.
type exportFlags struct {
	file, secretFile   string
	public, raw, plain bool
}

func (a *app) keyExportCmd() *cobra.Command {
	var f exportFlags
	cmd := &cobra.Command{
		Use: "export KEY --file FILE", Short: "Write a key to a file, the private one encrypted", Args: exactArgs(1),
		Long: `Writes a private key that is extractable as PKCS#8, encrypted by a passphrase (PBES2, AES-256) that OpenSSL
takes too: of --passphrase-file, else of QUANTAVIRT_PASSPHRASE, else asked for. With --public the public
key is written, which every key has. The private key leaves the node in an envelope for this command.`,
		Example: "  quantavirt crypto key export release --public --file release.pub\n  quantavirt crypto key export release --file release.pem",
		RunE: func(cmd *cobra.Command, args []string) error {
			switch {
			case f.file == "":
				return usage(cmd, errors.New("--file is missing"))
			case f.raw && !f.public:
				return usage(cmd, errors.New("--raw is for public keys"))
			case f.plain && f.public:
				return usage(cmd, errors.New("a public key is never encrypted"))
			}
			if _, err := os.Lstat(f.file); err == nil {
				return qverr.New(qverr.Exist, "%s is there already", f.file)
			}
			if f.public {
				return a.exportPublic(cmd.Context(), args[0], f)
			}
			return a.exportPrivate(cmd.Context(), args[0], f)
		},
	}
	cmd.Flags().StringVar(&f.file, "file", "", "the file to make; it must not be there yet")
	cmd.Flags().BoolVar(&f.public, "public", false, "the public key")
	cmd.Flags().BoolVar(&f.raw, "raw", false, "the public key in the encoding of its standard, not as PEM")
	cmd.Flags().BoolVar(&f.plain, "plain", false, "the private key without encryption")
	cmd.Flags().StringVar(&f.secretFile, "passphrase-file", "", "a file whose first line is the passphrase")
	return cmd
}

func (a *app) exportPublic(ctx context.Context, ref string, f exportFlags) error {
	p, err := a.nodeKey(ctx, ref)
	if err != nil {
		return err
	}
	data := p.public
	if !f.raw {
		der, err := keyfile.MarshalPublic(p.algorithm, p.public)
		if err != nil {
			return err
		}
		data = keyfile.EncodePublic(der)
	}
	return a.wrote(f.file, data, "public key of "+p.algorithm.String())
}

func (a *app) exportPrivate(ctx context.Context, ref string, f exportFlags) error {
	var text string
	var err error
	if !f.plain {
		if text, err = a.passphrase(f.secretFile, true); err != nil {
			return err
		}
		if text == "" {
			return qverr.New(qverr.Inval, "the passphrase is empty").WithHint("--plain writes the key without encryption")
		}
	}
	der, err := a.receive(envelope.Export, func(c *client, recipient []byte) (*http.Response, error) {
		return c.ExportKey(ctx, ref, spec.KeyExport{Recipient: recipient})
	})
	if err != nil {
		return err
	}
	defer der.Wipe()
	if f.plain {
		data := keyfile.EncodePrivate(der.Bytes())
		defer clear(data)
		return a.wrote(f.file, data, "private key, not encrypted")
	}
	data, err := keyfile.EncryptPrivate(der.Bytes(), []byte(text))
	if err != nil {
		return err
	}
	return a.wrote(f.file, data, "private key, encrypted")
}

// publicKey is one with its algorithm.
type publicKey struct {
	algorithm pqc.Algorithm
	public    []byte
}

// nodeKey is the public key of a key of the node.
func (a *app) nodeKey(ctx context.Context, ref string) (publicKey, error) {
	ans, err := call[spec.Key](a, func(c *client) (*http.Response, error) { return c.GetKey(ctx, ref) })
	if err != nil {
		return publicKey{}, err
	}
	algorithm, err := pqc.ParseAlgorithm(ans.value.Algorithm)
	return publicKey{algorithm, ans.value.PublicKey}, err
}

// theKey is the public key that --key and --public-key say.
func (a *app) theKey(cmd *cobra.Command, ref, file string) (publicKey, error) {
	switch {
	case (ref == "") == (file == ""):
		return publicKey{}, usage(cmd, errors.New("one of --key and --public-key says which key"))
	case ref != "":
		return a.nodeKey(cmd.Context(), ref)
	}
	data, err := a.readFile(file, maxKeyFile)
	if err != nil {
		return publicKey{}, err
	}
	algorithm, public, err := keyfile.ParsePublic(data)
	if err != nil {
		return publicKey{}, qverr.New(qverr.CodeOf(err), "%s: %w", filepath.Base(file), err)
	}
	return publicKey{algorithm, public}, nil
}
