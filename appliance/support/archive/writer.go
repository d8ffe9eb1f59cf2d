package archive

import (
	"archive/tar"
	"bytes"
	"compress/gzip"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"strings"
	"time"

	"quantavirt/appliance/support/redact"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
)

// Writer writes a bundle. It keeps one file in memory at a time.
type Writer struct {
	manifest Manifest
	folder   string
	out      io.Writer
	zip      *gzip.Writer
	tar      *tar.Writer
	now      func() time.Time
	began    time.Time // the part
	total    int64
}

// NewWriter begins a bundle with what m says about the node. If out has a method Flush,
// that is called as often as a part begins.
func NewWriter(out io.Writer, m Manifest) *Writer {
	m.Format, m.Parts = Format, []Part{}
	zip := gzip.NewWriter(out)
	return &Writer{manifest: m, folder: Folder(m), out: out, zip: zip, tar: tar.NewWriter(zip), now: time.Now}
}

// Folder is the name of the folder in a bundle, and of its file without the ending.
func Folder(m Manifest) string {
	host := strings.Map(func(r rune) rune {
		if r >= '0' && r <= '9' || r >= 'a' && r <= 'z' || r >= 'A' && r <= 'Z' || r == '-' {
			return r
		}
		return '-'
	}, m.Hostname)
	return "quantavirt-support-" + host + m.CreatedAt.UTC().Format("-20060102T150405Z")
}

// Begin begins a part, after the one before it.
func (w *Writer) Begin(part string) error {
	if err := w.end(); err != nil {
		return err
	}
	w.began = w.now()
	w.manifest.Parts = append(w.manifest.Parts, Part{Name: part, Files: []File{}, Errors: []initapi.Problem{}})
	err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeDir, Name: w.folder + "/" + part + "/", Mode: 0o700, ModTime: w.began})
	if err == nil {
		err = w.flush()
	}
	return wrote(err)
}

func (w *Writer) flush() error {
	err := errors.Join(w.tar.Flush(), w.zip.Flush())
	if f, ok := w.out.(interface{ Flush() error }); ok && err == nil {
		err = f.Flush()
	}
	return err
}

// JSON adds a value to the part. It is left out, with an error in the manifest, if it is
// too much.
func (w *Writer) JSON(name string, v any) error {
	data, n, err := redact.JSON(v)
	if err != nil {
		w.Fail(fmt.Errorf("%s: %w", name, err))
		return nil
	}
	w.manifest.Redacted += n
	return w.add(File{Name: name}, data)
}

// Text adds a text to the part, of which cut bytes are left out already at its beginning.
func (w *Writer) Text(name string, text []byte, cut int64) error {
	data, n := redact.Text(text)
	w.manifest.Redacted += n
	if over := len(data) - MaxText; over > 0 {
		if i := bytes.IndexByte(data[over:], '\n'); i >= 0 {
			over += i + 1 // whole lines
		}
		data, cut = data[over:], cut+int64(over)
	}
	return w.add(File{Name: name, CutBytes: cut}, data)
}

// Fail notes in the manifest what could not be collected for the part.
func (w *Writer) Fail(err error) {
	p := w.part()
	problem := initapi.NewProblem(err)
	for _, s := range []*string{&problem.Message, &problem.Recovery} {
		text, n := redact.Text([]byte(*s))
		*s, w.manifest.Redacted = string(text), w.manifest.Redacted+n
	}
	p.Errors = append(p.Errors, *problem)
}

func (w *Writer) part() *Part { return &w.manifest.Parts[len(w.manifest.Parts)-1] }

func (w *Writer) add(f File, data []byte) error {
	p := w.part()
	f.Name, f.Bytes = p.Name+"/"+f.Name, int64(len(data))
	if w.total+f.Bytes > MaxTotal {
		w.Fail(qverr.New(qverr.NoSpc, "%s is left out: the bundle has %d bytes already", f.Name, w.total))
		return nil
	}
	if f.CutBytes > 0 {
		mark := fmt.Sprintf("[%d bytes before this are left out]\n", f.CutBytes)
		data = append([]byte(mark), data...)
		f.Bytes = int64(len(data))
	}
	sum := sha256.Sum256(data)
	f.SHA256 = hex.EncodeToString(sum[:])
	w.total += f.Bytes
	p.Bytes += f.Bytes
	p.Files = append(p.Files, f)
	return w.file(f.Name, data)
}

func (w *Writer) file(name string, data []byte) error {
	err := w.tar.WriteHeader(&tar.Header{Typeflag: tar.TypeReg, Name: w.folder + "/" + name, Mode: 0o600, Size: int64(len(data)), ModTime: w.now()})
	if err == nil {
		_, err = w.tar.Write(data)
	}
	return wrote(err)
}

// end ends the part, if there is one.
func (w *Writer) end() error {
	if len(w.manifest.Parts) == 0 {
		return nil
	}
	p := w.part()
	p.TookMS = w.now().Sub(w.began).Milliseconds()
	if len(p.Errors) == 0 {
		return nil
	}
	var b strings.Builder
	for _, e := range p.Errors {
		fmt.Fprintf(&b, "%s (%d): %s\n", e.Name, e.Code, e.Message)
	}
	return w.add(File{Name: ErrorsName}, []byte(b.String()))
}

// Close ends the bundle with its manifest.
func (w *Writer) Close() error {
	if err := w.end(); err != nil {
		return err
	}
	data, err := json.MarshalIndent(w.manifest, "", "  ")
	if err != nil {
		return qverr.New(qverr.Generic, "the manifest: %w", err)
	}
	if err := w.file(ManifestName, append(data, '\n')); err != nil {
		return err
	}
	return wrote(errors.Join(w.tar.Close(), w.zip.Close()))
}

func wrote(err error) error {
	if err == nil {
		return nil
	}
	return qverr.New(qverr.IO, "write the support bundle: %w", err)
}
