// Package volume finds the data volume: the one ext4 file system labelled
// QV-DATA, on a partition or a whole disk, or the partition of that name in a
// GPT.
package volume

import (
	"bytes"
	"context"
	"encoding/binary"
	"errors"
	"os"
	"path/filepath"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

// Label marks the data volume.
const Label = "QV-DATA"

// Candidate is a block device that carries the label.
type Candidate struct {
	Name     string // below /dev
	PartUUID string // "" for a whole disk, or a kernel that does not tell
	Size     int64  // bytes
}

// System is where to look: sysfs and /dev, which tests replace.
type System struct{ Sys, Dev string }

// Find returns the volume, nil if there is none. Two are an error (Exist): to
// guess would mount yesterday's state.
func (s System) Find() (*Candidate, error) {
	entries, err := os.ReadDir(filepath.Join(s.Sys, "class/block"))
	if err != nil {
		return nil, qverr.New(qverr.IO, "look for disks: %w", err)
	}
	var found []Candidate
	for _, e := range entries {
		if c, ok := s.probe(e.Name()); ok {
			found = append(found, c)
		}
	}
	switch len(found) {
	case 0:
		return nil, nil
	case 1:
		return &found[0], nil
	}
	return nil, qverr.New(qverr.Exist, "both /dev/%s and /dev/%s are labelled %s: none is used", found[0].Name, found[1].Name, Label).
		WithHint("take one away, or give it another label with e2label")
}

// probe looks at one device. Without a file system of the label a partition of
// that name is no volume: it is not formatted.
func (s System) probe(name string) (Candidate, bool) {
	c := Candidate{Name: name}
	for line := range strings.Lines(s.attribute(name, "uevent")) {
		if id, ok := strings.CutPrefix(strings.TrimSpace(line), "PARTUUID="); ok {
			c.PartUUID = id
		}
	}
	sectors, err := strconv.ParseInt(strings.TrimSpace(s.attribute(name, "size")), 10, 64)
	if err != nil || sectors == 0 {
		return c, false
	}
	c.Size = sectors * 512
	f, err := os.Open(filepath.Join(s.Dev, name))
	if err != nil {
		return c, false
	}
	defer f.Close()
	var super [256]byte
	if _, err := f.ReadAt(super[:], 1024); err != nil {
		return c, false
	}
	label, ok := ext4Label(super[:])
	return c, ok && label == Label
}

func (s System) attribute(name, file string) string {
	text, err := os.ReadFile(filepath.Join(s.Sys, "class/block", name, file))
	if err != nil {
		return ""
	}
	return string(text)
}

// ext4Label reads s_volume_name of a superblock (Documentation/filesystems/ext4,
// "Super Block"): 16 bytes at 0x78, magic 0xEF53 at 0x38.
func ext4Label(super []byte) (string, bool) {
	if len(super) < 0x88 || binary.LittleEndian.Uint16(super[0x38:]) != 0xEF53 {
		return "", false
	}
	label := super[0x78:0x88]
	if i := bytes.IndexByte(label, 0); i >= 0 {
		label = label[:i]
	}
	return string(label), true
}

// Await is Find that looks again whenever the kernel tells of a new block
// device, until ctx ends. It looks once only, if nothing more can come.
func (s System) Await(ctx context.Context, more bool) (*Candidate, error) {
	if !more {
		return s.Find()
	}
	events, err := listen(ctx) // before the first look, so that nothing is missed
	if err != nil {
		return s.Find()
	}
	for {
		c, err := s.Find()
		if c != nil || err != nil {
			return c, err
		}
		select {
		case _, ok := <-events:
			if !ok {
				return s.Find()
			}
		case <-ctx.Done():
			return s.Find()
		}
	}
}

// MorePossible tells whether a disk may still appear: a driver other than
// virtio's, which probes at once, serves a storage or USB controller.
func (s System) MorePossible() bool {
	devices, _ := filepath.Glob(filepath.Join(s.Sys, "bus/pci/devices/*"))
	for _, dev := range devices {
		class, err := os.ReadFile(filepath.Join(dev, "class"))
		if err != nil {
			continue
		}
		text := strings.TrimSpace(string(class))
		if !strings.HasPrefix(text, "0x01") && !strings.HasPrefix(text, "0x0c03") {
			continue
		}
		driver, err := os.Readlink(filepath.Join(dev, "driver"))
		if err == nil && filepath.Base(driver) != "virtio-pci" && !errors.Is(err, os.ErrNotExist) {
			return true
		}
	}
	return false
}
