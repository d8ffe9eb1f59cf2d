package archive

import (
	"archive/tar"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"maps"
	"strings"

	"quantavirt/internal/qverr"
)

// Entry is what Read shows as it comes.
type Entry struct {
	Part  string // "" for the manifest
	Name  string // within the part; "" where a part begins
	Bytes int64
}

// Read reads a bundle to its end, calls see for all that is in it as it comes, and
// returns the manifest when all files are as that says. What is no bundle, or not a whole
// one, is QV_ERR_IO.
func Read(r io.Reader, see func(Entry)) (Manifest, error) {
	m, err := read(r, see)
	if err != nil {
		return Manifest{}, qverr.New(qverr.IO, "read the support bundle: %w", err)
	}
	return m, nil
}

func read(r io.Reader, see func(Entry)) (m Manifest, err error) {
	zip, err := gzip.NewReader(r)
	if err != nil {
		return m, err
	}
	in := tar.NewReader(zip)
	sums := make(map[string]string)
	whole := false
	for {
		h, err := in.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return m, err
		}
		if whole {
			return m, fmt.Errorf("%.100q comes after the manifest", h.Name)
		}
		_, name, _ := strings.Cut(h.Name, "/")
		e := Entry{Bytes: h.Size}
		e.Part, e.Name, _ = strings.Cut(name, "/")
		switch {
		case h.Typeflag != tar.TypeReg:
		case name == ManifestName:
			whole, e = true, Entry{Name: name, Bytes: h.Size}
			err = json.NewDecoder(io.LimitReader(in, maxManifest)).Decode(&m)
		default:
			sums[name], err = sum(in)
		}
		if err != nil {
			return m, fmt.Errorf("%.100q: %w", h.Name, err)
		}
		see(e)
	}
	if !whole {
		return m, errors.New("it has no manifest")
	}
	if _, err := io.Copy(io.Discard, zip); err != nil { // its check sum is at its end
		return m, err
	}
	return m, m.check(sums)
}

func sum(r io.Reader) (string, error) {
	h := sha256.New()
	if _, err := io.Copy(h, r); err != nil {
		return "", err
	}
	return hex.EncodeToString(h.Sum(nil)), nil
}

// check compares the files with what the manifest says.
func (m Manifest) check(sums map[string]string) error {
	if m.Format != Format {
		return fmt.Errorf("it is of format %d, not %d", m.Format, Format)
	}
	want := make(map[string]string)
	for _, p := range m.Parts {
		for _, f := range p.Files {
			want[f.Name] = f.SHA256
		}
	}
	if !maps.Equal(sums, want) {
		return errors.New("its files are not those of its manifest")
	}
	return nil
}
