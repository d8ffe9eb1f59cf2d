package image

import (
	"fmt"
	"io"
	"slices"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/u-root/mkuimage/cpio"
)

// Sizes of an image, in bytes.
type Sizes struct {
	Kernel    int64  `json:"kernel"`
	Initramfs int64  `json:"initramfs"` // compressed
	Unpacked  int64  `json:"unpacked"`  // the archive before compression
	Total     int64  `json:"total"`     // kernel and initramfs
	Aim       int64  `json:"aim"`
	Parts     []Part `json:"parts"`
}

// Part is one line of the table.
type Part struct {
	Name  string `json:"name"`
	Raw   int64  `json:"raw"`
	Share int64  `json:"share"` // of the compressed archive, by compressing the part alone
}

// parts counts records by group while they pass by.
type parts struct {
	groups map[string]*counter
}

// counter counts the bytes of a group, raw and compressed.
type counter struct {
	raw, packed int64
	zstd        *zstd.Encoder
}

// Write counts compressed bytes.
func (c *counter) Write(p []byte) (int, error) {
	c.packed += int64(len(p))
	return len(p), nil
}

func newParts() *parts { return &parts{groups: map[string]*counter{}} }

func (p *parts) add(group string, r cpio.Record) error {
	c, ok := p.groups[group]
	if !ok {
		c = &counter{}
		var err error
		if c.zstd, err = zstd.NewWriter(c, zstd.WithEncoderConcurrency(1)); err != nil {
			return err
		}
		p.groups[group] = c
	}
	data, err := content(r)
	if err != nil {
		return fmt.Errorf("image: %s: %w", r.Name, err)
	}
	c.raw += int64(len(data))
	_, err = c.zstd.Write(data)
	return err
}

// list returns the groups, the largest first; Share is not yet scaled to the
// size of the archive.
func (p *parts) list() []Part {
	var list []Part
	for name, c := range p.groups {
		if c.zstd != nil {
			_ = c.zstd.Close() // a counter does not fail
			c.zstd = nil
		}
		list = append(list, Part{Name: name, Raw: c.raw, Share: c.packed})
	}
	slices.SortFunc(list, func(a, b Part) int {
		if a.Raw != b.Raw {
			return int(b.Raw - a.Raw)
		}
		return strings.Compare(a.Name, b.Name)
	})
	return list
}

// finish fills in what is known after compression.
func (s *Sizes) finish(build string, kernel, initramfs int64) {
	s.Kernel, s.Initramfs, s.Total, s.Aim = kernel, initramfs, kernel+initramfs, ukiAims[build]
	var sum int64
	for _, p := range s.Parts {
		sum += p.Share
	}
	for i := range s.Parts {
		s.Parts[i].Share = s.Parts[i].Share * initramfs / max(sum, 1)
	}
}

// Print writes the table.
func (s Sizes) Print(w io.Writer) {
	line := func(name string, raw, packed int64) {
		fmt.Fprintf(w, "  %-32s %10s %10s\n", name, kib(raw), kib(packed))
	}
	fmt.Fprintf(w, "  %-32s %10s %10s\n", "part", "raw", "packed")
	for _, p := range s.Parts {
		line(p.Name, p.Raw, p.Share)
	}
	line("initramfs", s.Unpacked, s.Initramfs)
	line("kernel", s.Kernel, s.Kernel)
	line("kernel and initramfs", s.Kernel+s.Unpacked, s.Total)
	verdict := "under"
	if s.Total > s.Aim {
		verdict = "OVER"
	}
	fmt.Fprintf(w, "  %s the aim of %s\n", verdict, kib(s.Aim))
}

func kib(n int64) string { return fmt.Sprintf("%d KiB", (n+1023)>>10) }
