package secureboot

import (
	"crypto/rand"
	"crypto/rsa"
	"crypto/x509"
	"crypto/x509/pkix"
	"encoding/pem"
	"errors"
	"fmt"
	"io/fs"
	"math/big"
	"os"
	"path/filepath"
	"time"
)

// Names of the keys, which are those of the UEFI variables: PK may change KEK,
// KEK may change db, and db signs what boots.
const (
	PK  = "PK"
	KEK = "KEK"
	DB  = "db"
)

// Bits is the size of new RSA keys. The UEFI specification obliges firmware to
// take 2048 bits, and not all takes more.
const Bits = 2048

// validity of new certificates. Firmware does not look at it.
const validity = 30 * 365 * 24 * time.Hour

// Key is a private key with its certificate.
type Key struct {
	Private     *rsa.PrivateKey
	Certificate *x509.Certificate
}

// Generate makes a key with a certificate that it signs itself.
func Generate(name string) (Key, error) {
	private, err := rsa.GenerateKey(rand.Reader, Bits)
	if err != nil {
		return Key{}, fmt.Errorf("secureboot: %w", err)
	}
	serial, err := rand.Int(rand.Reader, new(big.Int).Lsh(big.NewInt(1), 127))
	if err != nil {
		return Key{}, fmt.Errorf("secureboot: %w", err)
	}
	now := time.Now().UTC().Truncate(time.Second)
	template := &x509.Certificate{
		SerialNumber:          serial,
		Subject:               pkix.Name{CommonName: name},
		NotBefore:             now,
		NotAfter:              now.Add(validity),
		KeyUsage:              x509.KeyUsageDigitalSignature,
		ExtKeyUsage:           []x509.ExtKeyUsage{x509.ExtKeyUsageCodeSigning},
		BasicConstraintsValid: true,
		SignatureAlgorithm:    x509.SHA256WithRSA,
	}
	der, err := x509.CreateCertificate(rand.Reader, template, template, private.Public(), private)
	if err != nil {
		return Key{}, fmt.Errorf("secureboot: certificate of %s: %w", name, err)
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return Key{}, fmt.Errorf("secureboot: certificate of %s: %w", name, err)
	}
	return Key{private, certificate}, nil
}

// Load reads the key of a name in dir: NAME.key and NAME.crt, in PEM. A missing
// key is fs.ErrNotExist.
func Load(dir, name string) (Key, error) {
	path := filepath.Join(dir, name)
	der, err := readPEM(path+".key", "PRIVATE KEY")
	if err != nil {
		return Key{}, err
	}
	parsed, err := x509.ParsePKCS8PrivateKey(der)
	if err != nil {
		return Key{}, fmt.Errorf("secureboot: %s.key: %w", path, err)
	}
	private, ok := parsed.(*rsa.PrivateKey)
	if !ok {
		return Key{}, fmt.Errorf("secureboot: %s.key is not an RSA key", path)
	}
	if der, err = readPEM(path+".crt", "CERTIFICATE"); err != nil {
		return Key{}, err
	}
	certificate, err := x509.ParseCertificate(der)
	if err != nil {
		return Key{}, fmt.Errorf("secureboot: %s.crt: %w", path, err)
	}
	if !private.PublicKey.Equal(certificate.PublicKey) {
		return Key{}, fmt.Errorf("secureboot: %s.crt is not the certificate of %s.key", path, name)
	}
	return Key{private, certificate}, nil
}

func readPEM(path, kind string) ([]byte, error) {
	text, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("secureboot: %w", err)
	}
	block, _ := pem.Decode(text)
	if block == nil || block.Type != kind {
		return nil, fmt.Errorf("secureboot: %s holds no %s in PEM", path, kind)
	}
	return block.Bytes, nil
}

// save writes NAME.crt, NAME.cer (the same in DER, as firmware menus want it)
// and, last, NAME.key: a key that is there is complete.
func (k Key) save(dir, name string) error {
	private, err := x509.MarshalPKCS8PrivateKey(k.Private)
	if err != nil {
		return fmt.Errorf("secureboot: %w", err)
	}
	for _, f := range []struct {
		suffix string
		mode   fs.FileMode
		data   []byte
	}{
		{".crt", 0o644, pem.EncodeToMemory(&pem.Block{Type: "CERTIFICATE", Bytes: k.Certificate.Raw})},
		{".cer", 0o644, k.Certificate.Raw},
		{".key", 0o600, pem.EncodeToMemory(&pem.Block{Type: "PRIVATE KEY", Bytes: private})},
	} {
		if err := write(filepath.Join(dir, name+f.suffix), f.data, f.mode); err != nil {
			return err
		}
	}
	return nil
}

// write replaces a file at once.
func write(path string, data []byte, mode fs.FileMode) error {
	temp := path + ".part"
	if err := os.WriteFile(temp, data, mode); err != nil {
		return fmt.Errorf("secureboot: %w", err)
	}
	if err := os.Rename(temp, path); err != nil {
		return fmt.Errorf("secureboot: %w", err)
	}
	return nil
}

// Keys are the three keys of a builder.
type Keys struct {
	PK, KEK, DB Key
	Made        []string // names of those that were made now
}

// EnsureKeys loads the keys in dir and makes those that are missing, then writes
// the enrolment files of all: NAME.esl and NAME.auth.
func EnsureKeys(dir string) (Keys, error) {
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return Keys{}, fmt.Errorf("secureboot: %w", err)
	}
	var keys Keys
	for _, k := range []struct {
		name string
		key  *Key
	}{{PK, &keys.PK}, {KEK, &keys.KEK}, {DB, &keys.DB}} {
		var err error
		*k.key, err = Load(dir, k.name)
		if errors.Is(err, fs.ErrNotExist) {
			if *k.key, err = Generate("QuantaVirt " + k.name); err == nil {
				err = k.key.save(dir, k.name)
			}
			keys.Made = append(keys.Made, k.name)
		}
		if err != nil {
			return Keys{}, err
		}
	}
	return keys, keys.writeEnrolment(dir)
}
