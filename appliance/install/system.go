package install

import (
	"cmp"
	"crypto/sha256"
	"encoding/hex"
	"io"
	"os"
	"path/filepath"
	"time"

	"quantavirt/internal/disklayout"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
)

// bootDir is where the image keeps the boot loaders.
const bootDir = "/lib/quantavirt/boot"

// firstSlot is the only one of a new installation.
const firstSlot = 1

// system is what goes into the slot: a unified kernel image.
type system struct {
	f    *os.File
	size int64
	uki  *ukifile.File
	info slot.Info
}

// openSystem reads a unified kernel image that may be any file. QV_ERR_INVAL: it
// is none of QuantaVirt; QV_ERR_IO: it is not what was received.
func openSystem(got received) (*system, error) {
	f, err := os.Open(got.path)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "open the system to install: %w", err)
	}
	s, err := readSystem(f, got)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

func readSystem(f *os.File, got received) (*system, error) {
	info, err := f.Stat()
	if err != nil {
		return nil, qverr.New(qverr.IO, "%w", err)
	}
	uki, err := ukifile.Open(f, info.Size())
	if err != nil {
		return nil, err
	}
	release, err := uki.Release()
	if err != nil {
		return nil, err
	}
	if release["ID"] != "quantavirt" {
		return nil, qverr.New(qverr.Inval, "the unified kernel image is that of %.40q, not of quantavirt", release["ID"])
	}
	sum := sha256.New()
	if _, err := io.Copy(sum, io.NewSectionReader(f, 0, info.Size())); err != nil {
		return nil, qverr.New(qverr.IO, "read the system to install: %w", err)
	}
	digest := hex.EncodeToString(sum.Sum(nil))
	if got.sum != "" && digest != got.sum {
		return nil, qverr.New(qverr.IO, "the system to install has the SHA-256 %s, not %s: it changed after it was received or written", digest, got.sum)
	}
	return &system{f: f, size: info.Size(), uki: uki, info: slot.Info{
		Sequence: firstSlot, Version: cmp.Or(got.version, release["QUANTAVIRT_VERSION"]), Build: release["QUANTAVIRT_BUILD"], Counter: got.counter,
		SHA256: digest, WrittenAt: time.Now().UTC().Truncate(time.Second), State: slot.StateGood,
	}}, nil
}

// runningSystem is the booted slot of a mounted medium, or the one that would be
// booted.
func runningSystem(dir, booted string) (received, error) {
	folder := filepath.Join(dir, filepath.FromSlash(slot.UKIFolder))
	entries, err := os.ReadDir(folder)
	if err != nil {
		return received{}, qverr.New(qverr.NoEnt, "the boot medium has no system: %w", err)
	}
	var names []string
	for _, e := range entries {
		if n, ok := slot.ParseName(e.Name()); ok && slot.Digits(n.Sequence) == booted {
			return onMedium(dir, n), nil
		}
		names = append(names, e.Name())
	}
	n, ok := slot.First(names)
	if !ok {
		return received{}, qverr.New(qverr.NoEnt, "the boot medium has no system in %s", slot.UKIFolder)
	}
	return onMedium(dir, n), nil
}

// onMedium is a slot of a mounted medium, with what its slot.json says if that can
// be read.
func onMedium(dir string, n slot.Name) received {
	got := received{path: filepath.Join(dir, filepath.FromSlash(slot.UKIFolder), n.String())}
	data, err := os.ReadFile(filepath.Join(dir, slot.Folder, slot.Digits(n.Sequence), slot.InfoFile))
	if err != nil {
		return got
	}
	if i, err := slot.ParseInfo(data); err == nil && i.Sequence == n.Sequence {
		got.sum, got.version, got.counter = i.SHA256, i.Version, i.Counter
	}
	return got
}

func (s *system) slot() disklayout.Slot {
	return disklayout.Slot{Info: s.info, UKI: s.f, Size: s.size}
}

// loaders are those that start it.
type loaders struct {
	systemdBoot []byte
	bios        disklayout.BIOS
}

func readLoaders(dir string) (l loaders, err error) {
	for name, data := range map[string]*[]byte{"systemd-bootx64.efi": &l.systemdBoot, "boot.img": &l.bios.Boot, "core.img": &l.bios.Core} {
		if *data, err = os.ReadFile(filepath.Join(dir, name)); err != nil {
			return l, qverr.New(qverr.NoEnt, "boot loaders: %w", err)
		}
	}
	return l, nil
}
