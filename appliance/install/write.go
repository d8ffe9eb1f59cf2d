package install

import (
	"context"
	"crypto/rand"
	"encoding/binary"
	"errors"
	"io"
	"os"
	"time"

	"quantavirt/appliance/task"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/disks"
	"quantavirt/internal/efivar"
	"quantavirt/internal/fat32"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/ukifile"
)

// Phases of an installation, as the task shows them.
const (
	phaseCheck  = "check"
	phaseSystem = "partitions, boot loaders, system"
	phaseData   = "data volume"
	phaseVerify = "read back"
	phaseDone   = "done"
)

// job is an installation under way.
type job struct {
	Request
	disk    disks.Disk
	system  *system // nil: data only
	loaders loaders
	config  []byte // to lie on the new medium, nil for none
	tools   Tools
	encrypt func(ctx context.Context, p sealed.Place, recoveryKey string, uki *ukifile.File) (string, func() error, error)
	now     time.Time

	firmware efivar.Variables     // nil for none
	esp      disklayout.Partition // that was made
}

// write does it all. What was on the disk is lost from its first write on.
func (j *job) write(ctx context.Context, p *task.Progress) error {
	offset, size, written, err := j.layOut(ctx, p)
	if err != nil {
		return err
	}
	p.Phase(phaseData)
	p.Set(0, 0, "")
	if err := j.makeData(ctx, offset, size); err != nil {
		return err
	}
	p.Phase(phaseVerify)
	if err := j.verify(written, p); err != nil {
		return err
	}
	if err := reread(j.disk.Device); err != nil {
		return err
	}
	if err := j.enterBoot(); err != nil {
		p.Warn(err)
	}
	p.Phase(phaseDone)
	return nil
}

// entryName is what the firmware's menu shows.
const entryName = "QuantaVirt"

// enterBoot has the firmware boot the disk first. Where it does not take that, the
// disk boots by the path of removable media, if the firmware looks there.
func (j *job) enterBoot() error {
	if j.firmware == nil || j.DataOnly {
		return nil
	}
	sectors := uint64(j.esp.Last - j.esp.First + 1)
	part := efivar.Partition{Number: uint32(j.esp.Number), First: uint64(j.esp.First), Size: sectors, ID: j.esp.ID}
	_, err := efivar.BootFirst(j.firmware, efivar.LoadOption{
		Attributes: efivar.Active, Description: entryName, Path: efivar.FilePath(part, disklayout.PathBoot),
	})
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "the firmware has no boot entry for the disk: %w", err).
			WithHint("choose the disk in the firmware's boot menu, or its file %s", disklayout.PathBoot)
	}
	return nil
}

// layOut writes everything but the data volume, tells where that goes and what
// was written where, and lets go of the disk, which mke2fs wants for itself.
func (j *job) layOut(ctx context.Context, p *task.Progress) (offset, size int64, written []extent, err error) {
	p.Phase(phaseSystem)
	var done, total int64
	t, err := openTarget(j.disk.Device, func(n int64) {
		done += n
		p.Set(min(done, total), total, "bytes")
	})
	if err != nil {
		return 0, 0, nil, err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	if j.DataOnly {
		offset, size = 0, j.disk.SizeBytes
		err = wipe(t, size)
		t.written = nil // mke2fs writes there too
	} else {
		offset, size, err = j.writeSystem(ctx, t, func(n int64) { total = n })
	}
	if err == nil {
		err = t.flush()
	}
	if err != nil {
		return 0, 0, nil, qverr.New(qverr.CodeOf(err), "write to %s: %w", j.disk, err)
	}
	return offset, size, t.written, nil
}

// writeSystem writes everything but the data volume, and tells where that goes.
func (j *job) writeSystem(ctx context.Context, t *target, expect func(int64)) (offset, size int64, err error) {
	files, err := disklayout.BootFiles(j.loaders.systemdBoot, firstSlot, j.system.slot())
	if err != nil {
		return 0, 0, err
	}
	if j.config != nil {
		files = append(files, fat32.Bytes(nodeconfig.FileName, j.config))
	}
	var serial [4]byte
	_, _ = rand.Read(serial[:])
	d := disklayout.Disk{
		Size: j.disk.SizeBytes / j.disk.SectorBytes * j.disk.SectorBytes, SectorSize: j.disk.SectorBytes,
		ESP: disklayout.ESPInstalled, Data: true, IDs: disklayout.RandomIDs(),
	}
	parts, err := d.Partitions()
	if err != nil {
		return 0, 0, err
	}
	var total int64
	for _, f := range files {
		total += f.Size
	}
	expect(total)
	v := disklayout.ESP{Serial: binary.LittleEndian.Uint32(serial[:]), Time: fatTime(j.now), Files: files}
	if _, err := d.Format(cancellable{ctx, t}, j.loaders.bios, v); err != nil {
		return 0, 0, err
	}
	j.esp = parts[1]
	data := parts[len(parts)-1]
	return data.Offset, data.Size, nil
}

// fatTime is a time that FAT can hold: a clock that was never set may show less.
func fatTime(t time.Time) time.Time {
	if t.Year() < 1980 {
		return time.Date(1980, 1, 1, 0, 0, 0, 0, time.UTC)
	}
	return t
}

// cancellable stops writing when ctx ends.
type cancellable struct {
	ctx context.Context
	t   *target
}

func (c cancellable) WriteAt(p []byte, off int64) (int, error) {
	if c.ctx.Err() != nil {
		return 0, context.Cause(c.ctx)
	}
	return c.t.WriteAt(p, off)
}

// makeData makes the data volume and checks it.
func (j *job) makeData(ctx context.Context, offset, size int64) (err error) {
	device := j.disk.Device
	if j.encrypts() {
		var uki *ukifile.File
		if j.system != nil {
			uki = j.system.uki
		}
		opened, closeDevice, openErr := j.encrypt(ctx, sealed.Place{Device: device, Offset: offset, Size: size}, j.RecoveryKey, uki)
		if openErr != nil {
			return openErr
		}
		defer func() { err = errors.Join(err, closeDevice()) }()
		if size, err = deviceSize(opened); err != nil {
			return err
		}
		device, offset = opened, 0
	}
	if err := j.tools.makeData(ctx, device, offset, size); err != nil {
		return err
	}
	return j.tools.checkData(ctx, device, offset)
}

func deviceSize(path string) (int64, error) {
	f, err := os.Open(path)
	if err != nil {
		return 0, qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = f.Close() }()
	size, err := f.Seek(0, io.SeekEnd)
	if err != nil {
		return 0, qverr.New(qverr.StrIO, "size of %s: %w", path, err)
	}
	return size, nil
}

// verify reads back everything but the data volume.
func (j *job) verify(written []extent, p *task.Progress) (err error) {
	var done, total int64
	t, err := openTarget(j.disk.Device, func(n int64) { done += n; p.Set(done, total, "bytes") })
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, t.close()) }()
	t.written = written
	total = t.size()
	if err := t.flush(); err != nil {
		return err
	}
	return t.verify()
}
