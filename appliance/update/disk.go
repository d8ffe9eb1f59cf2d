package update

import (
	"io"
	"maps"
	"path"
	"slices"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// Firmware is what starts the boot loader.
type Firmware int

// Kinds of firmware.
const (
	UEFI Firmware = iota // systemd-boot
	BIOS                 // GRUB
)

// pending is the suffix of a unified kernel image that no loader may see yet.
const pending = ".new"

// maxNote bounds what is read of a note, in bytes.
const maxNote = 4096

// Files by which a medium shows that it boots on a kind of firmware.
const (
	systemdBoot  = "systemd-bootx64.efi"
	loaderFolder = "EFI/systemd"
)

// disk is what an EFI system partition holds.
type disk struct {
	v        Volume
	firmware Firmware // that this boot came through
	loader   bool     // systemd-boot is there

	ukis    map[uint32][]slot.Name
	lost    map[uint32][]slot.Name // names of images in which nothing is: systemd-boot passes over them
	waiting map[uint32]bool        // its image has a name that no loader sees
	pieces  map[uint32]bool        // kernel, initramfs and command line are there
	infos   map[uint32]slot.Info
	folders map[uint32]bool
	env     *slot.Env // nil: no GRUB
}

// readDisk looks at everything that concerns slots. A description or an
// environment block that cannot be read counts as not there: what the
// loaders do does not depend on the first, and without the second GRUB has no slot.
func readDisk(v Volume, firmware Firmware) (*disk, error) {
	d := &disk{v: v, firmware: firmware, ukis: make(map[uint32][]slot.Name), lost: make(map[uint32][]slot.Name), waiting: make(map[uint32]bool),
		pieces: make(map[uint32]bool), infos: make(map[uint32]slot.Info), folders: make(map[uint32]bool)}
	loaders, err := v.List(loaderFolder)
	if err != nil {
		return nil, err
	}
	d.loader = slices.ContainsFunc(loaders, func(n string) bool { return strings.EqualFold(n, systemdBoot) })
	files, err := v.List(slot.UKIFolder)
	if err != nil {
		return nil, err
	}
	for _, f := range files {
		if n, ok := slot.ParseName(f); ok {
			if err := d.readImage(n); err != nil {
				return nil, err
			}
		} else if n, ok := slot.ParseName(strings.TrimSuffix(f, pending)); ok {
			d.waiting[n.Sequence] = true
		}
	}
	if err := d.readFolders(); err != nil {
		return nil, err
	}
	return d, d.readEnv()
}

// readImage notes an image. A power cut while it gets another name can leave it
// empty: FAT knows no order (see folder.sync).
func (d *disk) readImage(n slot.Name) error {
	f, size, err := d.v.Open(uki(n))
	if err != nil {
		return err
	}
	list := d.ukis
	if size == 0 {
		list = d.lost
	}
	list[n.Sequence] = append(list[n.Sequence], n)
	return f.Close()
}

func (d *disk) readFolders() error {
	folders, err := d.v.List(slot.Folder)
	if err != nil {
		return err
	}
	for _, name := range folders {
		seq, err := slot.ParseSequence(name)
		if err != nil {
			continue
		}
		d.folders[seq] = true
		files, err := d.v.List(path.Join(slot.Folder, name))
		if err != nil {
			return err
		}
		d.pieces[seq] = slices.Contains(files, slot.Kernel) && slices.Contains(files, slot.Initramfs) && slices.Contains(files, slot.Cmdline)
		d.readInfo(seq, files)
	}
	return nil
}

// readInfo reads a slot's description. While it gets a new one the old may be gone
// from the disk before the new has its name: then that is read.
func (d *disk) readInfo(seq uint32, files []string) {
	for _, name := range []string{slot.InfoFile, slot.InfoFile + pending} {
		if !slices.Contains(files, name) {
			continue
		}
		data, err := d.read(inFolder(seq, name), 1<<20)
		if err != nil {
			continue
		}
		if i, err := slot.ParseInfo(data); err == nil && i.Sequence == seq {
			d.infos[seq] = i
			return
		}
	}
}

// note is what PID 1 wrote about a slot that it gave up, "" for nothing.
func (d *disk) note(seq uint32) string {
	data, err := d.read(inFolder(seq, slot.NoteFile), maxNote)
	if err != nil { // the slot failed in any case
		return ""
	}
	return strings.TrimSpace(strings.ToValidUTF8(string(data), "?"))
}

func (d *disk) readEnv() error {
	data, err := d.read(slot.EnvFile, slot.EnvSize+1)
	if qverr.CodeOf(err) == qverr.NoEnt {
		return nil
	}
	if err != nil {
		return err
	}
	if e, err := slot.ParseEnv(data); err == nil {
		d.env = &e
	}
	return nil
}

// read reads a small file, at most limit bytes of it.
func (d *disk) read(name string, limit int64) ([]byte, error) {
	f, size, err := d.v.Open(name)
	if err != nil {
		return nil, err
	}
	defer func() { _ = f.Close() }()
	data, err := io.ReadAll(io.NewSectionReader(f, 0, min(size, limit)))
	if err != nil {
		return nil, failed("read", name, err)
	}
	return data, nil
}

// sequences are all slots of which anything is there, ascending.
func (d *disk) sequences() []uint32 {
	all := maps.Clone(d.folders)
	for seq := range d.ukis {
		all[seq] = true
	}
	for seq := range d.lost {
		all[seq] = true
	}
	for seq := range d.waiting {
		all[seq] = true
	}
	return slices.Sorted(maps.Keys(all))
}

// next is the number of the next slot.
func (d *disk) next() (uint32, error) {
	all := d.sequences()
	if len(all) == 0 {
		return 1, nil
	}
	last := all[len(all)-1]
	if last >= slot.MaxSequence {
		return 0, qverr.New(qverr.Limit, "slot %d is the last that there can be: install the node anew", last)
	}
	return last + 1, nil
}

// onUEFI and onBIOS tell which loaders the medium has.
func (d *disk) onUEFI() bool { return d.loader || d.firmware == UEFI }
func (d *disk) onBIOS() bool { return d.env != nil }

// bootsUEFI is the slot that systemd-boot boots next, 0 for none.
func (d *disk) bootsUEFI() uint32 {
	var names []string
	for _, list := range d.ukis {
		for _, n := range list {
			names = append(names, n.String())
		}
	}
	n, _ := slot.First(names)
	return n.Sequence
}

// bootsBIOS is the slot that GRUB boots next, 0 for none.
func (d *disk) bootsBIOS() uint32 {
	if d.env == nil {
		return 0
	}
	seq, _ := d.env.Boot()
	return seq
}

// boots is the slot that this machine's loader boots next.
func (d *disk) boots() uint32 {
	if d.firmware == BIOS {
		return d.bootsBIOS()
	}
	return d.bootsUEFI()
}

// whole tells whether this machine's loader can boot a slot.
func (d *disk) whole(seq uint32) bool {
	if d.firmware == BIOS {
		return d.pieces[seq]
	}
	return len(d.ukis[seq]) > 0
}

// isLost tells whether this machine's loader has nothing left of a slot but a name.
func (d *disk) isLost(seq uint32) bool {
	return d.firmware == UEFI && len(d.lost[seq]) > 0 && len(d.ukis[seq]) == 0
}

// trial tells whether a slot is not blessed, and whether it was booted already.
func (d *disk) trial(seq uint32) (onTrial, booted bool) {
	if d.firmware == BIOS {
		if d.env == nil {
			return false, false
		}
		try, left := d.env.Try()
		return try == seq && seq != 0, left == 0
	}
	for _, n := range d.ukis[seq] {
		if !n.Counted {
			return false, false
		}
		booted = booted || n.Left == 0
	}
	return len(d.ukis[seq]) > 0, booted
}

// tries is what this machine's loader has left for a slot; -1: it does not count.
func (d *disk) tries(seq uint32) int {
	if on, booted := d.trial(seq); !on {
		return -1
	} else if booted {
		return 0
	}
	if d.firmware == BIOS {
		_, left := d.env.Try()
		return left
	}
	left := 0
	for _, n := range d.ukis[seq] {
		left = max(left, n.Left)
	}
	return left
}

func uki(n slot.Name) string { return path.Join(slot.UKIFolder, n.String()) }

// waitingUKI is where the image of a slot lies before a loader may see it.
func waitingUKI(seq uint32) string { return uki(slot.Name{Sequence: seq}) + pending }

func inFolder(seq uint32, file string) string {
	return path.Join(slot.Folder, slot.Digits(seq), file)
}

// saveInfo writes slot.json, under another name until it is whole.
func (d *disk) saveInfo(i slot.Info) error {
	data, err := i.Encode()
	if err != nil {
		return err
	}
	name := inFolder(i.Sequence, slot.InfoFile)
	if err := d.v.Create(name+pending, func(w io.Writer) error { _, err := w.Write(data); return err }); err != nil {
		return err
	}
	if err := d.v.Rename(name+pending, name); err != nil {
		return err
	}
	d.infos[i.Sequence], d.folders[i.Sequence] = i, true
	return nil
}

// saveEnv writes a changed environment block over the old one: one sector.
func (d *disk) saveEnv(e slot.Env) error {
	data, err := e.Encode()
	if err != nil {
		return err
	}
	if err := d.v.Overwrite(slot.EnvFile, data); err != nil {
		return err
	}
	d.env = &e
	return nil
}

// rename gives the image of a slot another name.
func (d *disk) rename(from, n slot.Name) error {
	if from == n {
		return nil
	}
	if err := d.v.Rename(uki(from), uki(n)); err != nil {
		return err
	}
	d.ukis[n.Sequence] = append(slices.DeleteFunc(d.ukis[n.Sequence], func(m slot.Name) bool { return m == from || m == n }), n)
	return nil
}
