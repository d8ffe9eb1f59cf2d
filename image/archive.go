package image

import (
	"bytes"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"hash"
	"io"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage/initramfs"
	"github.com/u-root/uio/uio"
)

const (
	metaPath = "etc/quantavirt/image.json"
	sentinel = ".image-complete"
)

// archive receives the records of the initramfs from u-root in the order of
// their names, hashes them, and ends with image.json and the sentinel.
type archive struct {
	meta   Meta
	raw    bytes.Buffer // the cpio archive
	out    cpio.RecordWriter
	hash   hash.Hash
	groups map[string]string // of files that have a line of their own in the table
	parts  *parts
	items  []item // regular files
}

var _ initramfs.WriteOpener = (*archive)(nil)

func newArchive(meta Meta) *archive {
	a := &archive{meta: meta, hash: sha256.New(), groups: map[string]string{}, parts: newParts()}
	fmt.Fprintf(a.hash, "%s\x00%s\x00%s\x00", meta.Version, meta.Build, meta.Kernel)
	a.out = cpio.Newc.Writer(io.MultiWriter(&a.raw, a.hash))
	return a
}

// OpenWriter implements initramfs.WriteOpener.
func (a *archive) OpenWriter() (initramfs.Writer, error) { return a, nil }

// WriteRecord implements cpio.RecordWriter.
func (a *archive) WriteRecord(r cpio.Record) error {
	if r.Name == metaPath || r.Name == sentinel {
		return fmt.Errorf("image: %s is written by the archive itself", r.Name)
	}
	if err := a.parts.add(a.group(r.Name), r); err != nil {
		return err
	}
	if r.Mode&cpio.S_IFMT == cpio.S_IFREG {
		data, err := content(r)
		if err != nil {
			return fmt.Errorf("image: %s: %w", r.Name, err)
		}
		a.items = append(a.items, item{r.Name, int64(len(data)), sha256.Sum256(data)})
	}
	return a.out.WriteRecord(cpio.MakeReproducible(r))
}

// group is the line of the table that a file counts for.
func (a *archive) group(name string) string {
	if group, ok := a.groups[name]; ok {
		return group
	}
	return "directories, links, settings"
}

// Finish implements initramfs.Writer.
func (a *archive) Finish() error {
	a.meta.ID = hex.EncodeToString(a.hash.Sum(nil)[:16])
	text, err := json.MarshalIndent(a.meta, "", "  ")
	if err != nil {
		return err
	}
	last := []cpio.Record{
		cpio.StaticFile(metaPath, string(text)+"\n", 0o644),
		cpio.StaticFile(sentinel, a.meta.ID, 0o444),
	}
	if err := cpio.WriteRecords(a.out, last); err != nil {
		return err
	}
	return cpio.WriteTrailer(a.out)
}

// sizes returns the table of sizes, as far as it is known before compression.
func (a *archive) sizes() Sizes {
	return Sizes{Unpacked: int64(a.raw.Len()), Parts: a.parts.list()}
}

// content reads all of a record.
func content(r cpio.Record) ([]byte, error) {
	if r.ReaderAt == nil {
		return nil, nil
	}
	return io.ReadAll(uio.Reader(r))
}
