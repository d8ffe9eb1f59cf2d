package image

import (
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/bundle"
)

// BundleOptions describe an update bundle.
type BundleOptions struct {
	Out      string            // the bundle, NAME.qvu
	Keys     string            // folder of the builder's keys; every private update key signs
	UKIs     map[string]string // file by build
	SBOM     string            // CycloneDX file, "" for none
	Version  string
	Minimum  string // version that a node must run to take it, "" for any
	Counter  uint64
	Notes    string
	Created  time.Time
	AddKeys  []string // files of public keys that nodes trust from this update on
	DropKeys []string // ids of keys that they trust no more
}

// Bundle writes an update bundle, under another name until it is complete.
func Bundle(o BundleOptions) (bundle.Manifest, error) {
	m := bundle.Manifest{Version: o.Version, Counter: o.Counter, MinimumVersion: o.Minimum, CreatedAt: o.Created.UTC(), Notes: o.Notes}
	m.Keys.Remove = o.DropKeys
	for _, file := range o.AddKeys {
		raw, err := os.ReadFile(file)
		if err != nil {
			return m, fmt.Errorf("image: bundle: %w", err)
		}
		m.Keys.Add = append(m.Keys.Add, raw)
	}
	paths, err := o.files(&m)
	if err != nil {
		return m, err
	}
	keys, err := o.signers()
	if err != nil {
		return m, err
	}
	temp := o.Out + ".part"
	f, err := os.Create(temp)
	if err != nil {
		return m, fmt.Errorf("image: bundle: %w", err)
	}
	err = bundle.Write(f, m, keys, func(f bundle.File) (io.ReadCloser, error) { return os.Open(paths[f.Name]) })
	if err = errors.Join(err, f.Close()); err == nil {
		err = os.Rename(temp, o.Out)
	}
	if err != nil {
		return m, errors.Join(fmt.Errorf("image: bundle: %w", err), os.Remove(temp))
	}
	return m, nil
}

// files lists the payload in the manifest: UKIs by build, then the SBOM.
func (o BundleOptions) files(m *bundle.Manifest) (paths map[string]string, err error) {
	paths = make(map[string]string)
	add := func(name, role, build, path string) error {
		size, sum, err := digestFile(path)
		if err != nil {
			return fmt.Errorf("image: bundle: %w", err)
		}
		m.Files = append(m.Files, bundle.File{Name: name, Role: role, Build: build, Size: size, SHA256: sum})
		paths[name] = path
		return nil
	}
	for _, build := range []string{"virtual", "hardware"} {
		if path, ok := o.UKIs[build]; ok {
			err = errors.Join(err, add(build+".efi", bundle.RoleUKI, build, path))
		}
	}
	if o.SBOM != "" {
		err = errors.Join(err, add("sbom.cdx.json", bundle.RoleSBOM, "", o.SBOM))
	}
	if err == nil && len(m.Files) == 0 {
		err = fmt.Errorf("image: bundle: no unified kernel image to put into it")
	}
	return paths, err
}

func (o BundleOptions) signers() ([]*mldsa87.PrivateKey, error) {
	keys, err := UpdateKeys(o.Keys)
	if err != nil {
		return nil, err
	}
	var private []*mldsa87.PrivateKey
	for _, k := range keys {
		if k.Private != nil {
			private = append(private, k.Private)
		}
	}
	if len(private) == 0 {
		return nil, fmt.Errorf("image: bundle: no private update key in %s", o.Keys)
	}
	return private, nil
}

func digestFile(path string) (size int64, sum string, err error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, "", err
	}
	defer func() { _ = f.Close() }()
	h := sha256.New()
	size, err = io.Copy(h, f)
	return size, hex.EncodeToString(h.Sum(nil)), err
}

// BuiltUKIs are the unified kernel images that lie in a folder of images, by
// build.
func BuiltUKIs(out string) (map[string]string, error) {
	found := make(map[string]string)
	for _, build := range []string{"virtual", "hardware"} {
		path := filepath.Join(out, build, UKIFile)
		switch _, err := os.Stat(path); {
		case err == nil:
			found[build] = path
		case !errors.Is(err, fs.ErrNotExist):
			return nil, fmt.Errorf("image: bundle: %w", err)
		}
	}
	return found, nil
}
