package backup

import (
	"archive/tar"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"slices"
	"strings"
	"time"

	"quantavirt/internal/qverr"
)

// Names in the data directory, and in the archive.
const (
	stateFile    = "state.db"
	manifestFile = "manifest.json"
)

var (
	single  = []string{stateFile, "uplink.json"}
	folders = []string{"keystore", "configs"}
)

// Bounds of what a backup may hold: a damaged one is stopped by its seal, but one
// that was made to harm must not fill the volume either.
const (
	maxFiles    = 10_000
	maxTotal    = 4 << 30
	maxManifest = 16 << 20
)

// format is that of the archive inside.
const format = 1

// Manifest is the first file of the archive.
type Manifest struct {
	Format    int       `json:"format"`
	Version   string    `json:"version"` // of the system that made it
	NodeID    string    `json:"node_id"`
	Hostname  string    `json:"hostname"`
	CreatedAt time.Time `json:"created_at"`
	Files     []File    `json:"files"`
	Images    []File    `json:"images"` // not in the archive
	Disks     []File    `json:"disks"`  // likewise
}

// File is what a manifest says about one.
type File struct {
	Name   string `json:"name"`
	Size   int64  `json:"size"` // bytes
	SHA256 string `json:"sha256,omitempty"`
}

// source is a file on its way into the archive.
type source struct {
	File
	path string
}

// collect hashes what lies in the data directory, with the state file's snapshot in
// its place.
func collect(dir, snapshot string) ([]source, error) {
	list := []source{{File{Name: stateFile}, snapshot}}
	for _, name := range single[1:] {
		if _, err := os.Stat(filepath.Join(dir, name)); err == nil {
			list = append(list, source{File{Name: name}, filepath.Join(dir, name)})
		}
	}
	for _, folder := range folders {
		err := filepath.WalkDir(filepath.Join(dir, folder), func(p string, d fs.DirEntry, err error) error {
			if err != nil {
				return err
			}
			rel, err := filepath.Rel(dir, p)
			if err != nil || !d.Type().IsRegular() || strings.HasPrefix(d.Name(), ".") {
				return err
			}
			list = append(list, source{File{Name: filepath.ToSlash(rel)}, p})
			return nil
		})
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			return nil, qverr.New(qverr.CodeOf(err), "backup: %w", err)
		}
	}
	for i := range list {
		if err := list[i].hash(); err != nil {
			return nil, err
		}
	}
	return list, nil
}

func (s *source) hash() error {
	f, err := os.Open(s.path)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "backup: %w", err)
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if s.Size, err = io.Copy(sum, f); err != nil {
		return qverr.New(qverr.CodeOf(err), "backup %s: %w", s.Name, err)
	}
	s.SHA256 = hex.EncodeToString(sum.Sum(nil))
	return nil
}

// pack writes manifest and files.
func pack(w io.Writer, m Manifest, list []source) error {
	t := tar.NewWriter(w)
	data, err := json.MarshalIndent(m, "", "  ")
	if err != nil {
		return qverr.New(qverr.Generic, "backup: %w", err)
	}
	if err := add(t, manifestFile, int64(len(data)), strings.NewReader(string(data))); err != nil {
		return err
	}
	for _, s := range list {
		f, err := os.Open(s.path)
		if err != nil {
			return qverr.New(qverr.CodeOf(err), "backup: %w", err)
		}
		err = add(t, s.Name, s.Size, io.LimitReader(f, s.Size))
		_ = f.Close()
		if err != nil {
			return err
		}
	}
	return t.Close()
}

func add(t *tar.Writer, name string, size int64, r io.Reader) error {
	err := t.WriteHeader(&tar.Header{Name: name, Mode: 0o600, Size: size, Typeflag: tar.TypeReg, Format: tar.FormatPAX})
	if err == nil {
		var n int64
		if n, err = io.Copy(t, r); err == nil && n != size {
			err = fmt.Errorf("it has %d bytes instead of %d", n, size)
		}
	}
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "backup %s: %w", name, err)
	}
	return nil
}

// allowed says that a name is one that a backup has.
func allowed(name string) bool {
	if path.Clean(name) != name || !fs.ValidPath(name) {
		return false
	}
	first, rest, nested := strings.Cut(name, "/")
	if !nested {
		return slices.Contains(single, name)
	}
	return rest != "" && slices.Contains(folders, first)
}

func bad(text string, args ...any) error {
	return qverr.New(qverr.Config, "the backup: "+text, args...)
}

// readManifest reads and checks the first file.
func readManifest(t *tar.Reader) (Manifest, error) {
	var m Manifest
	h, err := t.Next()
	if err != nil {
		return m, damaged(err)
	}
	if h.Name != manifestFile || h.Typeflag != tar.TypeReg || h.Size > maxManifest {
		return m, bad("its first file is no manifest")
	}
	data, err := io.ReadAll(io.LimitReader(t, maxManifest))
	if err != nil {
		return m, damaged(err)
	}
	if err := json.Unmarshal(data, &m); err != nil {
		return m, bad("its manifest: %w", err)
	}
	if m.Format != format {
		return m, qverr.New(qverr.Version, "the backup has archive format %d, this system knows %d", m.Format, format)
	}
	if len(m.Files) == 0 || len(m.Files) > maxFiles {
		return m, bad("it lists %d files", len(m.Files))
	}
	total, seen := int64(0), make(map[string]bool)
	for _, f := range m.Files {
		if !allowed(f.Name) || seen[f.Name] || f.Size < 0 || f.Size > maxTotal {
			return m, bad("file %.100q is not one of a node's state", f.Name)
		}
		seen[f.Name] = true
		if total += f.Size; total > maxTotal {
			return m, bad("it holds more than %d bytes", int64(maxTotal))
		}
	}
	if !seen[stateFile] {
		return m, bad("it has no %s", stateFile)
	}
	return m, nil
}

// damaged keeps the code of what decryption found.
func damaged(err error) error {
	var coded *qverr.Error
	if errors.As(err, &coded) {
		return err
	}
	return bad("it is damaged: %w", err)
}

// unpack writes all files below dir and checks them, to the end of r.
func unpack(r io.Reader, dir string) (Manifest, error) {
	t := tar.NewReader(r)
	m, err := readManifest(t)
	if err != nil {
		return m, err
	}
	for _, want := range m.Files {
		h, err := t.Next()
		if err != nil {
			return m, damaged(err)
		}
		if h.Name != want.Name || h.Typeflag != tar.TypeReg || h.Size != want.Size {
			return m, bad("file %.100q is not where the manifest has %s", h.Name, want.Name)
		}
		if err := extract(t, dir, want); err != nil {
			return m, err
		}
	}
	if _, err := t.Next(); !errors.Is(err, io.EOF) {
		if err == nil {
			err = errors.New("there is more than the manifest lists")
		}
		return m, damaged(err)
	}
	// The archive may end before the file: all of it must be authentic.
	if _, err := io.Copy(io.Discard, r); err != nil {
		return m, damaged(err)
	}
	return m, nil
}

func extract(r io.Reader, dir string, want File) error {
	to := filepath.Join(dir, filepath.FromSlash(want.Name))
	if err := os.MkdirAll(filepath.Dir(to), 0o700); err != nil {
		return qverr.New(qverr.CodeOf(err), "restore: %w", err)
	}
	f, err := os.OpenFile(to, os.O_WRONLY|os.O_CREATE|os.O_EXCL, 0o600)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "restore: %w", err)
	}
	sum := sha256.New()
	_, err = io.Copy(io.MultiWriter(f, sum), r)
	if err != nil {
		_ = f.Close()
		return damaged(err)
	}
	if err := errors.Join(f.Sync(), f.Close()); err != nil {
		return qverr.New(qverr.CodeOf(err), "restore %s: %w", want.Name, err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != want.SHA256 {
		return bad("%s is not what the manifest says", want.Name)
	}
	return nil
}
