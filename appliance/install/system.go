package install

import (
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
// is none of QuantaVirt.
func openSystem(path string) (*system, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "open the system to install: %w", err)
	}
	s, err := readSystem(f)
	if err != nil {
		_ = f.Close()
		return nil, err
	}
	return s, nil
}

func readSystem(f *os.File) (*system, error) {
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
	return &system{f: f, size: info.Size(), uki: uki, info: slot.Info{
		Sequence: firstSlot, Version: release["QUANTAVIRT_VERSION"], Build: release["QUANTAVIRT_BUILD"],
		SHA256: hex.EncodeToString(sum.Sum(nil)), WrittenAt: time.Now().UTC().Truncate(time.Second), State: slot.StateGood,
	}}, nil
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
