package bundle

import (
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// Magic is what a bundle begins with.
const Magic = "QVU1"

// Reader reads a bundle from a stream.
type Reader struct {
	r        io.Reader
	manifest Manifest
	signers  []KeyID
	next     int
	open     bool // the file before next was handed out and not copied
}

// NewReader reads and verifies everything before the payload, and no byte
// more. QV_ERR_INVAL: this is no bundle; QV_ERR_IO: the stream was cut;
// PQC_ERR_VERIFY: no trusted key has signed it; QV_ERR_VERSION: its format is not
// known.
func NewReader(r io.Reader, keys Keys) (*Reader, error) {
	manifest, signers, err := readHead(r, keys)
	if err != nil {
		return nil, err
	}
	m, err := parseManifest(manifest)
	if err != nil {
		return nil, err
	}
	return &Reader{r: r, manifest: m, signers: signers}, nil
}

// readHead returns the manifest's bytes when a trusted key has signed them.
func readHead(r io.Reader, keys Keys) ([]byte, []KeyID, error) {
	var head [len(Magic) + 4]byte
	if err := fill(r, head[:], "head"); err != nil {
		return nil, nil, err
	}
	if string(head[:len(Magic)]) != Magic {
		return nil, nil, qverr.New(qverr.Inval, "this is no update bundle: it begins with %q", head[:len(Magic)])
	}
	size := binary.LittleEndian.Uint32(head[len(Magic):])
	if size < 1 || size > maxManifest {
		return nil, nil, qverr.New(qverr.Inval, "update bundle: a manifest of %d bytes, not 1 to %d", size, maxManifest)
	}
	manifest := make([]byte, size)
	if err := fill(r, manifest, "manifest"); err != nil {
		return nil, nil, err
	}
	signers, err := readSignatures(r, manifest, keys)
	return manifest, signers, err
}

func readSignatures(r io.Reader, manifest []byte, keys Keys) ([]KeyID, error) {
	var n [2]byte
	if err := fill(r, n[:], "signatures"); err != nil {
		return nil, err
	}
	count := binary.LittleEndian.Uint16(n[:])
	if count < 1 || count > maxSignatures {
		return nil, qverr.New(qverr.Inval, "update bundle: %d signatures, not 1 to %d", count, maxSignatures)
	}
	var good []KeyID
	var unknown string
	var signature [len(KeyID{}) + mldsa87.SignatureSize]byte
	for range count {
		if err := fill(r, signature[:], "signatures"); err != nil {
			return nil, err
		}
		id := KeyID(signature[:len(KeyID{})])
		if _, ok := keys[id]; !ok {
			unknown += fmt.Sprintf(" %.16s…", id)
			continue
		}
		if !keys.verify(id, manifest, signature[len(id):]) {
			return nil, qverr.New(qverr.PQCVerify, "update bundle: the signature by key %s is not valid", id).
				WithHint("the bundle was damaged or changed: get it again from where it was published")
		}
		good = append(good, id)
	}
	if len(good) == 0 {
		return nil, qverr.New(qverr.PQCVerify, "update bundle: it is signed by%s, which this node does not trust", unknown).
			WithHint("take a bundle of the builder of this node's image")
	}
	return good, nil
}

// fill reads all of p.
func fill(r io.Reader, p []byte, what string) error {
	_, err := io.ReadFull(r, p)
	switch {
	case err == nil:
		return nil
	case errors.Is(err, io.EOF), errors.Is(err, io.ErrUnexpectedEOF):
		return qverr.New(qverr.IO, "update bundle: it ends within its %s: %w", what, io.ErrUnexpectedEOF)
	}
	return qverr.New(qverr.CodeOf(ioError(err)), "update bundle: read its %s: %w", what, err)
}

// ioError is QV_ERR_IO for what has no code.
func ioError(err error) error {
	if qverr.CodeOf(err) == qverr.Generic {
		return qverr.New(qverr.IO, "%w", err)
	}
	return err
}

// Manifest is what was signed.
func (r *Reader) Manifest() Manifest { return r.manifest }

// Signers are the trusted keys that signed.
func (r *Reader) Signers() []KeyID { return r.signers }

// Next names the next file, whose content Copy takes. io.EOF: all have been read
// and nothing follows them.
func (r *Reader) Next() (File, error) {
	if r.open {
		return File{}, qverr.New(qverr.Generic, "update bundle: %s was not read", r.manifest.Files[r.next-1].Name)
	}
	if r.next == len(r.manifest.Files) {
		return File{}, r.end()
	}
	r.next++
	r.open = true
	return r.manifest.Files[r.next-1], nil
}

// end is io.EOF when the stream ends as it should.
func (r *Reader) end() error {
	var b [1]byte
	switch _, err := io.ReadFull(r.r, b[:]); {
	case errors.Is(err, io.EOF):
		return io.EOF
	case err != nil:
		return qverr.New(qverr.CodeOf(ioError(err)), "update bundle: read its end: %w", err)
	}
	return qverr.New(qverr.Inval, "update bundle: something follows its last file")
}

// Copy writes the file that Next named to w. PQC_ERR_VERIFY: what w got is not
// what was signed and must not be used. An error of w is returned as it is.
func (r *Reader) Copy(w io.Writer) error {
	if !r.open {
		return qverr.New(qverr.Generic, "update bundle: no file to read")
	}
	r.open = false
	f := r.manifest.Files[r.next-1]
	sum := sha256.New()
	in := &source{r: r.r}
	n, err := io.CopyN(io.MultiWriter(w, sum), in, f.Size)
	switch {
	case in.err != nil:
		return qverr.New(qverr.CodeOf(ioError(in.err)), "update bundle: read %s: %w", f.Name, in.err)
	case errors.Is(err, io.EOF):
		return qverr.New(qverr.IO, "update bundle: it ends after %d of %d bytes of %s: %w", n, f.Size, f.Name, io.ErrUnexpectedEOF)
	case err != nil:
		return err
	case hex.EncodeToString(sum.Sum(nil)) != f.SHA256:
		return qverr.New(qverr.PQCVerify, "update bundle: the content of %s is not what was signed", f.Name).
			WithHint("the bundle was damaged or changed: get it again from where it was published")
	}
	return nil
}

// source tells errors of the stream from those of who is written to.
type source struct {
	r   io.Reader
	err error
}

func (s *source) Read(p []byte) (int, error) {
	n, err := s.r.Read(p)
	if err != nil && !errors.Is(err, io.EOF) {
		s.err = err
	}
	return n, err
}
