package update

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"

	"quantavirt/internal/disklayout"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
)

// image is a verified unified kernel image on its way into a slot.
type image struct {
	file    *os.File
	size    int64
	sum     string // SHA-256, hexadecimal
	uki     *ukifile.File
	cmdline string
	forGRUB []byte // the command line as GRUB reads it
	kernel  *io.SectionReader
}

// openImage takes an image apart as far as it is needed. QV_ERR_UNSUPPORTED: it
// is not one that this machine can boot, though it was signed.
func openImage(f *os.File, size int64, sum string) (*image, error) {
	i := &image{file: f, size: size, sum: sum}
	var err error
	if i.uki, err = ukifile.Open(f, size); err == nil {
		i.cmdline, err = i.uki.Text(ukifile.Cmdline)
	}
	if err == nil {
		i.forGRUB, err = disklayout.GRUBCmdline(i.cmdline)
	}
	if err == nil {
		i.kernel, err = i.uki.Kernel()
	}
	if err != nil {
		return nil, qverr.New(qverr.Unsupported, "the update's system: %w", err)
	}
	return i, nil
}

// part is a file of a slot: its name, its size and where it comes from.
type part struct {
	name string
	size int64
	open func() (io.Reader, error)
}

// parts are the files that a slot consists of on a disk.
func (i *image) parts(d *disk, seq uint32) []part {
	var list []part
	if d.onUEFI() {
		list = append(list, part{waitingUKI(seq), i.size, func() (io.Reader, error) { return io.NewSectionReader(i.file, 0, i.size), nil }})
	}
	if d.onBIOS() {
		list = append(list,
			part{inFolder(seq, slot.Kernel), i.kernel.Size(), func() (io.Reader, error) { return io.NewSectionReader(i.kernel, 0, i.kernel.Size()), nil }},
			part{inFolder(seq, slot.Initramfs), i.uki.InitrdSize(), i.uki.Initrd},
			part{inFolder(seq, slot.Cmdline), int64(len(i.forGRUB)), func() (io.Reader, error) { return bytes.NewReader(i.forGRUB), nil }})
	}
	return list
}

// spare room on the file system, for folders and slot.json, in bytes.
const margin = 1 << 20

// progress counts bytes of what a phase does.
type progress struct {
	done, total int64
	report      func(done, total int64, unit string)
}

func (p *progress) add(n int) {
	p.done += int64(n)
	if p.report != nil {
		p.report(p.done, p.total, "bytes")
	}
}

// copyTo copies until r ends or ctx does.
func copyTo(ctx context.Context, w io.Writer, r io.Reader, p *progress) error {
	buf := make([]byte, 1<<20)
	for {
		n, err := r.Read(buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return err
			}
			p.add(n)
		}
		if err == io.EOF {
			return nil
		}
		if err == nil {
			err = ctx.Err()
		}
		if err != nil {
			return err
		}
	}
}

// makeRoom removes spare slots until need bytes are free. QV_ERR_NOSPC: that is
// not enough, and nothing was removed. A slot that waits for its try always goes:
// two that wait would be tried one after the other.
func (d *disk) makeRoom(running uint32, need int64) error {
	free, err := d.v.Free()
	if err != nil {
		return err
	}
	var gone []uint32
	have := free
	for _, seq := range d.spare(running) {
		on, booted := d.trial(seq)
		if have >= need && (!on || booted) {
			continue
		}
		size, err := d.size(seq)
		if err != nil {
			return err
		}
		gone = append(gone, seq)
		have += size
	}
	if have < need {
		return qverr.New(qverr.NoSpc, "the system takes %d MiB, the EFI system partition has %d MiB free and %d MiB more in slots that may go",
			need>>20, free>>20, (have-free)>>20).WithHint("the node needs a larger partition: install it anew").
			With("needed_bytes", need).With("free_bytes", free)
	}
	for _, seq := range gone {
		if err := d.remove(seq); err != nil {
			return err
		}
	}
	return nil
}

// write writes an image into a new slot that no loader sees yet, and compares
// what is on the disk with it. When it fails nothing is left of the slot.
func (d *disk) write(ctx context.Context, i *image, info slot.Info, phase func(string), report func(done, total int64, unit string)) (err error) {
	seq := info.Sequence
	parts := i.parts(d, seq)
	var total int64
	for _, p := range parts {
		total += p.size
	}
	d.waiting[seq], d.folders[seq] = d.onUEFI(), true
	defer func() {
		if err != nil {
			_ = d.remove(seq)
		}
	}()
	phase("write")
	sums := make(map[string]string, len(parts))
	p := &progress{total: total, report: report}
	for _, part := range parts {
		if sums[part.name], err = d.writePart(ctx, part, p); err != nil {
			return err
		}
	}
	if got, ok := sums[waitingUKI(seq)]; ok && got != i.sum {
		return qverr.New(qverr.IO, "the update changed on the data volume after it was verified")
	}
	if err := d.saveInfo(info); err != nil {
		return err
	}
	phase("read back")
	p = &progress{total: total, report: report}
	for _, part := range parts {
		if err := d.compare(ctx, part, sums[part.name], p); err != nil {
			return err
		}
	}
	d.pieces[seq] = d.onBIOS()
	return nil
}

func (d *disk) writePart(ctx context.Context, part part, p *progress) (string, error) {
	sum := sha256.New()
	err := d.v.Create(part.name, func(w io.Writer) error {
		r, err := part.open()
		if err != nil {
			return err
		}
		return copyTo(ctx, io.MultiWriter(w, sum), r, p)
	})
	return hex.EncodeToString(sum.Sum(nil)), err
}

func (d *disk) compare(ctx context.Context, part part, want string, p *progress) error {
	f, size, err := d.v.Open(part.name)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	sum := sha256.New()
	if err := copyTo(ctx, sum, io.NewSectionReader(f, 0, size), p); err != nil {
		return failed("read back", part.name, err)
	}
	if size != part.size || hex.EncodeToString(sum.Sum(nil)) != want {
		return qverr.New(qverr.IO, "EFI system partition: %s reads back as something else than was written", part.name).
			WithHint("the medium is failing: replace it")
	}
	return nil
}
