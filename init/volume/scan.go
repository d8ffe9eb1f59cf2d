// Package volume finds and mounts the data volume: the ext4 file system, on a
// partition or a whole disk, that is labelled QV-DATA itself or lies in a GPT
// partition of that name. It may be encrypted (LUKS2), with that label on the outside.
package volume

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/disks"
	"quantavirt/internal/luks2"
	"quantavirt/internal/qverr"
)

// Label is that of the data volume.
const Label = disks.LabelData

// RAM is the value of the option that asks for no data volume.
const RAM = "ram"

// Block is a block device that may hold a file system.
type Block struct {
	Device   string // /dev/vda1
	PartName string
	PartUUID string
	Size     int64       // bytes
	FS       *disks.Ext4 // nil: no ext file system
	Crypt    *Crypt      // nil: not encrypted
	Opened   string      // device of what an encrypted volume holds, once it is open
}

// Crypt is what the header of an encrypted volume says about it.
type Crypt struct{ Label, UUID string }

// Host is where devices are looked for. The zero value of neither is of use.
type Host struct {
	Sys string // /sys
	Dev string // /dev
}

// skipped are kinds of devices that hold no data volume.
var skipped = []string{"loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd"}

// Scan looks at every disk and partition. A disk with partitions is not itself
// a candidate. Devices that cannot be read are left out; the error names them.
func (h Host) Scan() ([]Block, error) {
	class := filepath.Join(h.Sys, "class/block")
	entries, err := os.ReadDir(class)
	if errors.Is(err, os.ErrNotExist) {
		return nil, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.IO, "look for disks: %w", err)
	}
	parts := make(map[string][]string) // of a disk, by its name
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc(skipped, func(s string) bool { return strings.HasPrefix(name, s) }) {
			continue
		}
		disk := name
		if h.number(name, "partition") > 0 {
			target, err := filepath.EvalSymlinks(filepath.Join(class, name))
			if err != nil {
				continue // gone meanwhile
			}
			disk = filepath.Base(filepath.Dir(target))
			parts[disk] = append(parts[disk], name)
		} else if parts[disk] == nil {
			parts[disk] = []string{}
		}
	}
	var found []Block
	var errs []error
	for disk, names := range parts {
		blocks, err := h.disk(disk, names)
		if err != nil {
			errs = append(errs, fmt.Errorf("%s: %w", disk, err))
		}
		found = append(found, blocks...)
	}
	slices.SortFunc(found, func(a, b Block) int { return strings.Compare(a.Device, b.Device) })
	if err := errors.Join(errs...); err != nil {
		return found, qverr.New(qverr.StrIO, "look at disks: %w", err)
	}
	return found, nil
}

// number reads an attribute, 0 if it is not there.
func (h Host) number(name, attr string) int64 {
	data, err := os.ReadFile(filepath.Join(h.Sys, "class/block", name, attr))
	if err != nil {
		return 0
	}
	n, err := strconv.ParseInt(strings.TrimSpace(string(data)), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// disk looks at the partitions of a disk, or at itself if it has none.
func (h Host) disk(disk string, parts []string) ([]Block, error) {
	if h.number(disk, "size") == 0 { // no medium
		return nil, nil
	}
	if len(parts) == 0 {
		b, err := h.block(disk)
		return []Block{b}, err
	}
	var errs []error
	table, err := h.table(disk)
	if err != nil {
		errs = append(errs, err)
	}
	var found []Block
	for _, name := range parts {
		b, err := h.block(name)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		p := table.Parts[int(h.number(name, "partition"))]
		b.PartName, b.PartUUID = p.Name, p.UUID
		found = append(found, b)
	}
	return found, errors.Join(errs...)
}

func (h Host) table(disk string) (disks.Table, error) {
	f, err := os.Open(filepath.Join(h.Dev, disk))
	if err != nil {
		return disks.Table{}, err
	}
	defer func() { _ = f.Close() }()
	sector := h.number(disk, "queue/logical_block_size")
	if sector < 512 || sector > 1<<16 {
		sector = 512
	}
	return disks.ParseTable(f, sector)
}

func (h Host) block(name string) (Block, error) {
	b := Block{Device: filepath.Join(h.Dev, name), Size: h.number(name, "size") * 512}
	return b, b.read()
}

// FSDevice is the device that the file system lies on.
func (b Block) FSDevice() string { return cmp.Or(b.Opened, b.Device) }

// Open says that what an encrypted volume holds is to be seen at a device.
func (b *Block) Open(device string) error {
	b.Opened = device
	if err := b.read(); err != nil {
		return qverr.New(qverr.StrIO, "read %s: %w", b, err)
	}
	if b.FS == nil {
		return qverr.New(qverr.StrFormat, "the encrypted volume %s holds no ext4 file system", b)
	}
	return nil
}

// read looks for the superblock, or the header of an encrypted volume.
func (b *Block) read() error {
	b.FS = nil
	f, err := os.Open(b.FSDevice())
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	if err := b.readCrypt(f); err != nil || b.Crypt != nil && b.Opened == "" {
		return err
	}
	sb := make([]byte, disks.SuperSize)
	if _, err := f.ReadAt(sb, disks.SuperOffset); err != nil {
		if errors.Is(err, io.EOF) { // too small for any
			return nil
		}
		return err
	}
	if fs, ok := disks.ParseExt4(sb); ok {
		b.FS = &fs
	}
	return nil
}

func (b *Block) readCrypt(f *os.File) error {
	if b.Opened != "" {
		return nil
	}
	head := make([]byte, 512)
	if n, err := f.ReadAt(head, 0); err != nil && !errors.Is(err, io.EOF) {
		return err
	} else if !luks2.Is(head[:n]) {
		return nil
	}
	b.Crypt = &Crypt{}
	if v, err := luks2.Read(f); err == nil { // what is wrong with it is said when it is opened
		b.Crypt.Label, b.Crypt.UUID = v.Label, v.UUID
	}
	return nil
}

// Choose picks the data volume: the one that want names (PARTUUID=, UUID= or
// /dev/…), or the only one labelled so if want is empty. QV_ERR_NOENT: there is
// none; QV_ERR_CONFIG: there are several, and guessing could destroy data.
func Choose(blocks []Block, want string) (Block, error) {
	var found []Block
	for _, b := range blocks {
		if b.wanted(want) {
			found = append(found, b)
		}
	}
	if want == "" {
		want = Label
	}
	switch {
	case len(found) == 0:
		return Block{}, qverr.New(qverr.NoEnt, "there is no data volume %s", want)
	case len(found) > 1:
		names := make([]string, len(found))
		for i, b := range found {
			names[i] = b.String()
		}
		return Block{}, qverr.New(qverr.Config, "%d data volumes answer to %s: %s; none is used", len(found), want, strings.Join(names, ", ")).
			WithHint("remove one, or name the right one on the kernel command line: quantavirt.data=PARTUUID=… or quantavirt.data=/dev/…")
	case found[0].FS == nil && found[0].Crypt == nil:
		return Block{}, qverr.New(qverr.StrFormat, "%s holds no ext4 file system", found[0]).
			WithHint("make one: mkfs.ext4 -L %s %s", Label, found[0].Device)
	}
	return found[0], nil
}

func (b Block) wanted(want string) bool {
	kind, id, _ := strings.Cut(want, "=")
	switch {
	case want == "":
		return b.PartName == Label || b.FS != nil && b.FS.Label == Label || b.Crypt != nil && b.Crypt.Label == Label
	case strings.EqualFold(kind, "PARTUUID"):
		return id != "" && strings.EqualFold(b.PartUUID, id)
	case strings.EqualFold(kind, "UUID"):
		return b.FS != nil && strings.EqualFold(b.FS.UUID, id) || b.Crypt != nil && id != "" && strings.EqualFold(b.Crypt.UUID, id)
	}
	return b.Device == want
}

// CheckWant refuses a value of the option that is in none of its forms.
func CheckWant(want string) error {
	kind, id, ok := strings.Cut(want, "=")
	switch {
	case want == "", want == RAM, strings.HasPrefix(want, "/dev/"):
		return nil
	case ok && id != "" && (strings.EqualFold(kind, "PARTUUID") || strings.EqualFold(kind, "UUID")):
		return nil
	}
	return qverr.New(qverr.Config, "quantavirt.data=%.80s is none of PARTUUID=…, UUID=…, /dev/…, ram", want)
}

func (b Block) String() string {
	if b.PartUUID != "" {
		return b.Device + " (PARTUUID " + b.PartUUID + ")"
	}
	if b.FS != nil {
		return b.Device + " (UUID " + b.FS.UUID + ")"
	}
	return b.Device
}
