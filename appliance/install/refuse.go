package install

import (
	"cmp"
	"fmt"
	"slices"
	"strings"

	"quantavirt/internal/disklayout"
	"quantavirt/internal/disks"
	"quantavirt/internal/qverr"
)

// Smallest sizes, in bytes.
const (
	minData  = 512 << 20
	diskEnds = 4 << 20 // partition tables, QV-BIOS and rounding
)

// Request says what is to be done with which disk.
type Request struct {
	Disk       string // selector, see disks.Select
	WipeSerial string // its serial number, if what is on it may be lost
	DataOnly   bool   // make a data volume, and install nothing
	// Encrypt has the data volume encrypted, with a key sealed to the TPM.
	// RecoveryKey does so too, and opens the volume as well; without one there is
	// none until trust.SetRecoveryKey.
	Encrypt     bool
	RecoveryKey string
}

func (r Request) encrypts() bool { return r.Encrypt || r.RecoveryKey != "" }

// least is the size of the smallest disk for a request.
func (r Request) least() int64 {
	if r.DataOnly {
		return minData
	}
	return disklayout.ESPInstalled + minData + diskEnds
}

// choose finds the disk of a request among all, and refuses what must not be
// overwritten. Errors: those of disks.Select; QV_ERR_BUSY: the node stands on it
// or something uses it; QV_ERR_EXIST: it holds something, and its serial number was
// not given; QV_ERR_INVAL: another one was; QV_ERR_NOSPC; QV_STR_ERR_READONLY;
// QV_STR_ERR_IO: it could not be looked at; QV_ERR_UNSUPPORTED: its sectors.
func (r Request) choose(all []disks.Disk) (disks.Disk, error) {
	d, err := disks.Select(r.candidates(all), r.Disk)
	if err != nil {
		return d, err
	}
	refuse := func(code qverr.Code, format string, args ...any) error {
		return qverr.New(code, "%s: %s", d, fmt.Sprintf(format, args...)).With("device", d.Device)
	}
	switch {
	case d.ReadOnly:
		return d, refuse(qverr.StrReadonly, "it is read-only")
	case len(d.UsedBy) > 0:
		return d, refuse(qverr.Busy, "it is in use: %s", strings.Join(d.UsedBy, ", "))
	case d.SectorBytes != 512 && d.SectorBytes != 4096:
		return d, refuse(qverr.Unsupported, "it has sectors of %d bytes, not 512 or 4096", d.SectorBytes)
	case d.SizeBytes < r.least():
		return d, refuse(qverr.NoSpc, "it has %d bytes, at least %d are needed", d.SizeBytes, r.least())
	}
	return d, r.mayWipe(d)
}

// candidates are those that "smallest" and "largest" choose from: what the node
// runs on is none of them. A disk that is named is never passed over.
func (r Request) candidates(all []disks.Disk) []disks.Disk {
	if r.Disk != disks.Smallest && r.Disk != disks.Largest {
		return all
	}
	return slices.DeleteFunc(slices.Clone(all), func(d disks.Disk) bool { return len(d.UsedBy) > 0 })
}

// mayWipe tells whether what is on a disk may be lost. A disk without a serial
// number is named by its WWN or its path.
func (r Request) mayWipe(d disks.Disk) error {
	name := cmp.Or(d.Serial, d.WWN, d.Path)
	switch {
	case r.WipeSerial != "" && r.WipeSerial != name:
		return qverr.New(qverr.Inval, "%s: the serial number given is %.80q", d, r.WipeSerial).With("device", d.Device)
	case d.State == disks.Free || r.WipeSerial != "":
		return nil
	case d.Problem != nil:
		return qverr.New(qverr.StrIO, "%s: what is on it cannot be seen: %s", d, d.Problem.Message).With("device", d.Device)
	}
	err := qverr.New(qverr.Exist, "%s: there is something on it: %s", d, content(d)).With("device", d.Device).With("state", d.State)
	if name == "" {
		return err.WithHint("it has no serial number by which it could be named: erase it by hand")
	}
	return err.WithHint("if it may be lost, name the disk by its serial number: --wipe-serial %s", name)
}

// content says in a few words what is on a disk.
func content(d disks.Disk) string {
	var parts []string
	for _, p := range d.Partitions {
		text := p.Device
		if p.FileSystem != nil {
			text += " " + p.FileSystem.Type
		}
		if label := cmp.Or(p.Name, labelOf(p.FileSystem)); label != "" {
			text += fmt.Sprintf(" %q", label)
		}
		parts = append(parts, text)
	}
	switch {
	case len(parts) > 0:
		return d.Table + " with " + strings.Join(parts, ", ")
	case d.Table != "":
		return d.Table + " without partitions"
	case d.FileSystem != nil:
		return strings.TrimSpace(d.FileSystem.Type + " " + d.FileSystem.Label)
	}
	return "data of an unknown kind"
}

func labelOf(fs *disks.FileSystem) string {
	if fs == nil {
		return ""
	}
	return fs.Label
}
