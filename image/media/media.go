package media

import (
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"quantavirt/image"
	"quantavirt/image/grub"
	"quantavirt/image/iso"
	"quantavirt/image/tools"
	"quantavirt/init/medium"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/fat32"
	"quantavirt/internal/slot"
)

// Names of the media, beside the image.
const (
	DiskFile = "quantavirt.img"
	ISOFile  = "quantavirt.iso"
	PXEDir   = "pxe"
)

// configName is the configuration for the first boot, in the ESP's root.
const configName = "quantavirt.json"

// maxConfig bounds it, in bytes.
const maxConfig = 1 << 20

// first is the number of the only slot.
const first = 1

// Options of the media.
type Options struct {
	Dir      string    // of the image: build/image/BUILD
	Keys     string    // folder of the builder's keys; without keys there, iPXE is not signed
	Config   string    // file for the first boot to go onto disk and ISO, "" for none
	Counter  uint64    // of the slot, against going back to older versions
	Time     time.Time // of all files
	Progress io.Writer
}

// Make writes the media of an image whose unified kernel image is made.
func Make(ctx context.Context, root tools.Root, o Options) error {
	return o.make(ctx, root, (*media).disk, (*media).iso, (*media).pxe)
}

// MakeDisk writes only the disk.
func MakeDisk(ctx context.Context, root tools.Root, o Options) error {
	return o.make(ctx, root, (*media).disk)
}

func (o Options) make(ctx context.Context, root tools.Root, kinds ...func(*media, context.Context, tools.Root) error) error {
	m, err := o.open()
	if err != nil {
		return err
	}
	defer m.uki.Close()
	if m.bios, err = grub.BIOS(ctx, root); err != nil {
		return err
	}
	if err := m.files(); err != nil {
		return err
	}
	fmt.Fprintf(o.Progress, "  %-32s %10s\n", "medium", "size")
	for _, kind := range kinds {
		if err := kind(m, ctx, root); err != nil {
			return err
		}
	}
	return nil
}

// media is a run of Make.
type media struct {
	Options
	meta   image.Meta
	uki    *os.File
	slot   disklayout.Slot
	loader []byte // systemd-boot
	bill   []byte // of materials, of the image
	config []byte
	bios   disklayout.BIOS
	esp    disklayout.ESP
}

// open reads what the media are made from.
func (o Options) open() (*media, error) {
	m := &media{Options: o}
	text, err := os.ReadFile(filepath.Join(o.Dir, "image.json"))
	if err != nil {
		return nil, fmt.Errorf("media: no image: make image makes it: %w", err)
	}
	if err := json.Unmarshal(text, &m.meta); err != nil {
		return nil, fmt.Errorf("media: image.json: %w", err)
	}
	for name, data := range map[string]*[]byte{image.LoaderFile: &m.loader, image.SBOMFile: &m.bill} {
		if *data, err = os.ReadFile(filepath.Join(o.Dir, name)); err != nil {
			return nil, fmt.Errorf("media: %w", err)
		}
	}
	if o.Config != "" {
		if m.config, err = readConfig(o.Config); err != nil {
			return nil, err
		}
	}
	if m.uki, err = os.Open(filepath.Join(o.Dir, image.UKIFile)); err != nil {
		return nil, fmt.Errorf("media: no unified kernel image: %w", err)
	}
	sum := sha256.New()
	size, err := io.Copy(sum, m.uki)
	if err != nil {
		return nil, errors.Join(fmt.Errorf("media: %w", err), m.uki.Close())
	}
	m.slot = disklayout.Slot{UKI: m.uki, Size: size, Info: slot.Info{
		Sequence: first, Version: m.meta.Version, Build: m.meta.Build, SHA256: fmt.Sprintf("%x", sum.Sum(nil)),
		Counter: o.Counter, WrittenAt: o.Time.UTC(), State: slot.StateGood,
	}}
	return m, nil
}

func readConfig(path string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	if len(data) > maxConfig || !json.Valid(data) {
		return nil, fmt.Errorf("media: %s is not JSON of at most %d bytes", path, maxConfig)
	}
	return data, nil
}

// files decides what lies in the EFI system partition.
func (m *media) files() error {
	files, err := disklayout.BootFiles(m.loader, first, m.slot)
	if err != nil {
		return err
	}
	if m.config != nil {
		files = append(files, fat32.Bytes(configName, m.config))
	}
	m.esp = disklayout.ESP{Serial: m.serial(), Time: m.Time, Files: files}
	return nil
}

// serial is the volume id of the FAT.
func (m *media) serial() uint32 {
	sum := sha256.Sum256([]byte(m.slot.SHA256))
	return binary.LittleEndian.Uint32(sum[:])
}

// content is the size of the files, in bytes.
func (m *media) content() int64 {
	var n int64
	for _, f := range m.esp.Files {
		n += f.Size
	}
	return n
}

// disk writes the disk for USB sticks. Its EFI system partition has room for a
// second slot that is larger by half, so that a node that runs from the stick can be
// updated.
func (m *media) disk(context.Context, tools.Root) error {
	const spare = 16 << 20
	size := roundUp(m.content()*5/2+spare, 1<<20)
	d := disklayout.Disk{
		Size: disklayout.MinSize(size), SectorSize: 512, ESP: size,
		IDs: disklayout.DerivedIDs(m.slot.SHA256 + " " + DiskFile),
	}
	return m.write(DiskFile, func(f *os.File) error {
		if err := f.Truncate(d.Size); err != nil {
			return err
		}
		_, err := d.Format(f, m.bios, m.esp)
		return err
	})
}

// iso writes the disc. It is a disk as well, for whoever writes it to a stick:
// the same layout as that of disk, with ISO 9660 directories that point to the
// files in the EFI system partition.
func (m *media) iso(ctx context.Context, root tools.Root) error {
	const spare = 1 << 20 // FATs, directories and rounding
	size := max(roundUp(m.content()+m.content()/64+spare, 1<<20), disklayout.MinESP)
	d := disklayout.Disk{
		Size: disklayout.MinSize(size), SectorSize: 512, ESP: size,
		IDs: disklayout.DerivedIDs(m.slot.SHA256 + " " + ISOFile),
	}
	parts, err := d.Partitions()
	if err != nil {
		return err
	}
	boot, err := grub.Disc(ctx, root)
	if err != nil {
		return err
	}
	disc := iso.Disc{Label: medium.DiscLabel, Time: m.Time, Size: d.Size, BIOS: boot, EFI: parts[1].Offset}
	return m.write(ISOFile, func(f *os.File) error {
		if err := f.Truncate(d.Size); err != nil {
			return err
		}
		extents, err := d.Format(f, m.bios, m.esp)
		if err != nil {
			return err
		}
		for _, x := range extents {
			disc.Files = append(disc.Files, iso.File{Name: x.Name, Offset: x.Offset, Size: x.Size})
		}
		return disc.Write(f)
	})
}

// ipxePrograms are those that firmware is given: for BIOS, and for UEFI, which
// starts only what is signed under Secure Boot.
var ipxePrograms = []struct {
	name string
	uefi bool
}{{"undionly.kpxe", false}, {"snponly.efi", true}}

// scriptFile is for HTTP servers that know nothing of us: quantavirt-netboot makes
// a script for each machine.
const scriptFile = "boot.ipxe"

// bootScript names files beside it. netX is the card that iPXE booted from.
const bootScript = "#!ipxe\n" +
	"kernel vmlinuz initrd=initramfs " + image.Cmdline + " BOOTIF=01-${netX/mac:hexhyp} || exit 1\n" +
	"initrd initramfs || exit 1\n" +
	"boot || exit 1\n"

// pxe writes the files for network boot: kernel and initramfs for iPXE, the
// unified kernel image for UEFI, iPXE itself, and the bill of all that.
func (m *media) pxe(_ context.Context, root tools.Root) error {
	if err := os.MkdirAll(filepath.Join(m.Dir, PXEDir), 0o755); err != nil {
		return fmt.Errorf("media: %w", err)
	}
	files, err := m.slot.Parts()
	if err != nil {
		return err
	}
	for _, f := range files {
		if filepath.Base(f.Name) == slot.Cmdline {
			continue // the boot script has its own
		}
		if err := m.write(filepath.Join(PXEDir, filepath.Base(f.Name)), func(out *os.File) error { return f.CopyTo(out) }); err != nil {
			return err
		}
	}
	if err := m.writeBytes(filepath.Join(PXEDir, scriptFile), []byte(bootScript)); err != nil {
		return err
	}
	err = m.write(filepath.Join(PXEDir, image.UKIFile), func(f *os.File) error {
		_, err := io.Copy(f, io.NewSectionReader(m.uki, 0, m.slot.Size))
		return err
	})
	if err != nil {
		return err
	}
	return m.ipxe(root)
}

// ipxe writes iPXE, and the image's bill of materials with it.
func (m *media) ipxe(root tools.Root) error {
	signer, err := image.LoadSigner(m.Keys)
	if err != nil {
		return err
	}
	var from []string
	for _, p := range ipxePrograms {
		path := root.Path("usr", "lib", "ipxe", p.name)
		program, err := os.ReadFile(path)
		if err == nil && p.uefi {
			program, err = signer.Sign(program)
		}
		if err != nil {
			return fmt.Errorf("media: %w", err)
		}
		if err := m.writeBytes(filepath.Join(PXEDir, p.name), program); err != nil {
			return err
		}
		from = append(from, path)
	}
	bill, err := image.ExtendBill(root, m.bill, from...)
	if err != nil {
		return err
	}
	return m.writeBytes(filepath.Join(PXEDir, image.SBOMFile), bill)
}

func (m *media) writeBytes(name string, data []byte) error {
	return m.write(name, func(f *os.File) error { _, err := f.Write(data); return err })
}

// write makes a file under another name until it is complete, and prints its
// size.
func (m *media) write(name string, fill func(*os.File) error) (err error) {
	path := filepath.Join(m.Dir, name)
	f, err := os.Create(path + ".part")
	if err != nil {
		return fmt.Errorf("media: %w", err)
	}
	defer func() {
		if err != nil {
			err = errors.Join(fmt.Errorf("media: %s: %w", name, err), os.Remove(path+".part"))
		}
	}()
	if err := fill(f); err != nil {
		return errors.Join(err, f.Close())
	}
	info, err := f.Stat()
	if err := errors.Join(err, f.Close()); err != nil {
		return err
	}
	fmt.Fprintf(m.Progress, "  %-32s %6d KiB\n", name, (info.Size()+1023)>>10)
	return os.Rename(path+".part", path)
}

func roundUp(n, to int64) int64 { return (n + to - 1) / to * to }
