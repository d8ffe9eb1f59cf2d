package disks

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
)

// Labels by which QuantaVirt knows its own partitions: GPT names, and labels of
// the file systems in them.
const (
	LabelBIOS = "QV-BIOS" // GRUB's core image, for machines with BIOS
	LabelESP  = "QV-ESP"  // EFI system partition
	LabelData = "QV-DATA" // data volume
)

// States of a disk.
const (
	Free    = "free"    // nothing is on it
	Ours    = "ours"    // it holds partitions of QuantaVirt
	Foreign = "foreign" // it holds something else
)

// Disk is a block disk of the machine.
type Disk struct {
	Device      string          `json:"device"`         // /dev/nvme0n1
	Path        string          `json:"path,omitempty"` // where it is plugged: pci-0000:00:04.0-nvme-1
	Bus         string          `json:"bus"`            // nvme, sata, virtio, usb, scsi, mmc, other
	Model       string          `json:"model,omitempty"`
	Serial      string          `json:"serial,omitempty"`
	WWN         string          `json:"wwn,omitempty"`
	SizeBytes   int64           `json:"size_bytes"`
	SectorBytes int64           `json:"sector_bytes"` // logical
	Rotational  bool            `json:"rotational"`
	Removable   bool            `json:"removable"`
	ReadOnly    bool            `json:"readonly"`
	Table       string          `json:"table,omitempty"`       // gpt or mbr
	FileSystem  *FileSystem     `json:"file_system,omitempty"` // on the whole disk
	Partitions  []DiskPartition `json:"partitions"`
	State       string          `json:"state"`             // Free, Ours or Foreign
	UsedBy      []string        `json:"used_by,omitempty"` // "data volume", "boot medium", "mounted at …", "dm-0"
	Problem     *wire.Problem   `json:"problem,omitempty"` // it could not be looked at
}

// DiskPartition is a partition of a Disk as the kernel has it.
type DiskPartition struct {
	Device     string      `json:"device"`
	Number     int         `json:"number"`
	SizeBytes  int64       `json:"size_bytes"`
	Name       string      `json:"name,omitempty"`      // GPT
	Type       string      `json:"type,omitempty"`      // GUID, or 0x83
	PartUUID   string      `json:"part_uuid,omitempty"` // as in PARTUUID=
	FileSystem *FileSystem `json:"file_system,omitempty"`
}

// Host is where disks are looked for. All fields are needed.
type Host struct {
	Sys  string // /sys
	Dev  string // /dev
	Proc string // /proc
}

// skipped are kinds of devices that nothing is installed to: made up by the
// kernel, or without a medium of their own.
var skipped = []string{"loop", "ram", "zram", "sr", "fd", "dm-", "md", "nbd", "mtdblock"}

// List looks at every disk, in the order of their names. What is wrong with one
// stands in its Problem; the error is that of the whole look.
func (h Host) List() ([]Disk, error) {
	class := filepath.Join(h.Sys, "class/block")
	entries, err := os.ReadDir(class)
	if errors.Is(err, os.ErrNotExist) {
		return []Disk{}, nil
	}
	if err != nil {
		return nil, qverr.New(qverr.IO, "look for disks: %w", err)
	}
	parts := make(map[string][]string) // of a disk
	for _, e := range entries {
		name := e.Name()
		if slices.ContainsFunc(skipped, func(s string) bool { return strings.HasPrefix(name, s) }) {
			continue
		}
		if h.number(name, "partition") > 0 {
			if target, err := filepath.EvalSymlinks(filepath.Join(class, name)); err == nil {
				disk := filepath.Base(filepath.Dir(target))
				parts[disk] = append(parts[disk], name)
			}
		} else if parts[name] == nil {
			parts[name] = nil
		}
	}
	uses := h.uses()
	found := []Disk{}
	for name, partitions := range parts {
		if h.number(name, "size") > 0 && h.number(name, "hidden") == 0 {
			found = append(found, h.disk(name, partitions, uses))
		}
	}
	slices.SortFunc(found, func(a, b Disk) int { return strings.Compare(a.Device, b.Device) })
	return found, nil
}

func (h Host) disk(name string, parts []string, uses map[string][]string) Disk {
	id := h.identity(name)
	d := Disk{
		Device: filepath.Join(h.Dev, name), Path: id.path, Bus: id.bus, Model: id.model, Serial: id.serial, WWN: id.wwn,
		SizeBytes: h.number(name, "size") * 512, SectorBytes: h.number(name, "queue/logical_block_size"),
		Rotational: h.number(name, "queue/rotational") != 0, Removable: h.number(name, "removable") != 0, ReadOnly: h.number(name, "ro") != 0,
		Partitions: []DiskPartition{}, State: Foreign, UsedBy: slices.Concat(uses[name], h.holders(name)),
	}
	if d.SectorBytes < 512 || d.SectorBytes > 1<<16 {
		d.SectorBytes = 512
	}
	for _, p := range parts {
		d.UsedBy = append(d.UsedBy, slices.Concat(uses[p], h.holders(p))...)
	}
	if err := h.look(&d, parts); err != nil {
		d.Problem = wire.NewProblem(qverr.New(qverr.StrIO, "look at %s: %w", d.Device, err))
	}
	return d
}

// look reads what is on a disk. Until it has seen all, the disk counts as
// foreign.
func (h Host) look(d *Disk, parts []string) error {
	f, err := os.Open(d.Device)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	table, tableErr := ParseTable(f, d.SectorBytes)
	d.Table = table.Kind
	for _, name := range parts {
		n := int(h.number(name, "partition"))
		entry := table.Parts[n]
		p := DiskPartition{
			Device: filepath.Join(h.Dev, name), Number: n, SizeBytes: h.number(name, "size") * 512,
			Name: printable([]byte(entry.Name)), Type: entry.Type, PartUUID: entry.UUID,
		}
		if p.FileSystem, err = identifyFile(p.Device); err != nil {
			return err
		}
		d.Partitions = append(d.Partitions, p)
	}
	slices.SortFunc(d.Partitions, func(a, b DiskPartition) int { return a.Number - b.Number })
	if tableErr != nil {
		return tableErr
	}
	if d.Table == "" {
		if fs, ok, err := Identify(f); err != nil {
			return err
		} else if ok {
			d.FileSystem = &fs
		}
	}
	blank, _, err := Blank(f, d.SizeBytes)
	switch {
	case err != nil:
		return err
	case blank && len(parts) == 0:
		d.State = Free
	case d.ours():
		d.State = Ours
	}
	return nil
}

func (d *Disk) ours() bool {
	if d.FileSystem != nil && d.FileSystem.Label == LabelData {
		return true
	}
	return slices.ContainsFunc(d.Partitions, func(p DiskPartition) bool {
		return p.Name == LabelESP || p.Name == LabelData || p.FileSystem != nil && p.FileSystem.Label == LabelData
	})
}

func identifyFile(device string) (*FileSystem, error) {
	f, err := os.Open(device)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	fs, ok, err := Identify(f)
	if err != nil || !ok {
		return nil, err
	}
	return &fs, nil
}

// number reads an attribute, 0 if it is not there.
func (h Host) number(name, attr string) int64 {
	n, err := strconv.ParseInt(h.text(name, attr), 10, 64)
	if err != nil {
		return 0
	}
	return n
}

// text reads an attribute, "" if it is not there.
func (h Host) text(name, attr string) string {
	return readText(filepath.Join(h.Sys, "class/block", name, attr))
}

func readText(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return strings.TrimSpace(printable(data))
}

// holders are devices that stand on this one, as dm and md.
func (h Host) holders(name string) []string {
	entries, err := os.ReadDir(filepath.Join(h.Sys, "class/block", name, "holders"))
	if err != nil {
		return nil
	}
	var names []string
	for _, e := range entries {
		names = append(names, e.Name())
	}
	return names
}

// uses are mounts and swap, by the name of the device.
func (h Host) uses() map[string][]string {
	uses := make(map[string][]string)
	for line := range strings.Lines(readAll(filepath.Join(h.Proc, "self/mounts"))) {
		if f := strings.Fields(line); len(f) >= 2 && filepath.Dir(f[0]) == h.Dev {
			name := filepath.Base(f[0])
			uses[name] = append(uses[name], "mounted at "+f[1])
		}
	}
	for line := range strings.Lines(readAll(filepath.Join(h.Proc, "swaps"))) {
		if f := strings.Fields(line); len(f) >= 2 && filepath.Dir(f[0]) == h.Dev {
			uses[filepath.Base(f[0])] = append(uses[filepath.Base(f[0])], "swap")
		}
	}
	return uses
}

func readAll(path string) string {
	data, err := os.ReadFile(path)
	if err != nil {
		return ""
	}
	return string(data)
}

// String names a disk for people.
func (d Disk) String() string {
	if d.Serial == "" {
		return d.Device
	}
	return fmt.Sprintf("%s (serial %s)", d.Device, d.Serial)
}
