package bundle

import (
	"encoding/binary"
	"encoding/json"
	"io"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/internal/qverr"
)

// Write writes a bundle: the manifest, signed by every key, and the files, whose
// content open returns. Signing is deterministic: the same inputs make the same
// bytes. The content is checked against the manifest while it is written.
func Write(w io.Writer, m Manifest, keys []*mldsa87.PrivateKey, open func(File) (io.ReadCloser, error)) error {
	m.Format = Format
	if err := m.check(); err != nil {
		return err
	}
	if len(keys) < 1 || len(keys) > maxSignatures {
		return qverr.New(qverr.Inval, "update bundle: %d keys to sign with, not 1 to %d", len(keys), maxSignatures)
	}
	manifest, err := json.Marshal(m)
	if err != nil {
		return qverr.New(qverr.Inval, "update bundle: %w", err)
	}
	if len(manifest) > maxManifest {
		return qverr.New(qverr.Inval, "update bundle: a manifest of %d bytes, more than %d", len(manifest), maxManifest)
	}
	head := []byte(Magic)
	head = binary.LittleEndian.AppendUint32(head, uint32(len(manifest)))
	head = append(head, manifest...)
	head = binary.LittleEndian.AppendUint16(head, uint16(len(keys)))
	for _, key := range keys {
		public := key.Public().(*mldsa87.PublicKey).Bytes()
		id, err := ParseKey(public)
		if err != nil {
			return err
		}
		signature := make([]byte, mldsa87.SignatureSize)
		if err := mldsa87.SignTo(key, manifest, []byte(context), false, signature); err != nil {
			return qverr.New(qverr.PQCSign, "update bundle: %w", err)
		}
		head = append(append(head, id[:]...), signature...)
	}
	if _, err := w.Write(head); err != nil {
		return qverr.New(qverr.CodeOf(ioError(err)), "update bundle: %w", err)
	}
	for _, f := range m.Files {
		if err := writeFile(w, f, open); err != nil {
			return err
		}
	}
	return nil
}

func writeFile(w io.Writer, f File, open func(File) (io.ReadCloser, error)) error {
	in, err := open(f)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "update bundle: %s: %w", f.Name, err)
	}
	defer func() { _ = in.Close() }()
	one := &Reader{r: in, manifest: Manifest{Files: []File{f}}, next: 1, open: true}
	if err := one.Copy(w); err != nil {
		return err
	}
	if _, err := one.Next(); err != io.EOF {
		return qverr.New(qverr.Inval, "update bundle: %s is longer than %d bytes", f.Name, f.Size)
	}
	return nil
}
