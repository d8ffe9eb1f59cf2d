package image

import (
	"bytes"
	"context"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"path/filepath"

	"quantavirt/image/secureboot"
	"quantavirt/image/tools"
	"quantavirt/image/uki"
	"quantavirt/internal/ukifile"
)

// Cmdline is the kernel command line of every medium.
const Cmdline = "console=tty0 console=ttyS0 quiet panic=10 intel_iommu=on"

// Files of a unified kernel image, beside the kernel and initramfs that it is
// made from.
const (
	UKIFile    = "quantavirt.efi"
	PCR11File  = "pcr11.json"          // what it leaves in PCR 11
	LoaderFile = "systemd-bootx64.efi" // systemd-boot, for the media
)

// microcodeFile is the processor microcode of an image, if it has any.
const microcodeFile = "microcode.cpio"

// ukiAims are the sizes that the unified kernel images should stay under.
var ukiAims = map[string]int64{"virtual": 32 << 20, "hardware": 64 << 20}

// UKIOptions say what unified kernel image to make.
type UKIOptions struct {
	Out      string // as Options.Out
	Build    string
	Cmdline  string
	Keys     string // directory of the builder's keys; without keys there, nothing is signed
	Progress io.Writer
}

// UKI makes the unified kernel image of an image that Build has made, predicts
// what it leaves in PCR 11, and signs it and systemd-boot for Secure Boot if the
// builder has keys.
func UKI(ctx context.Context, o UKIOptions) error {
	dir := filepath.Join(o.Out, o.Build)
	unlock, err := lock(filepath.Join(dir, ".lock"))
	if err != nil {
		return err
	}
	defer unlock()
	root, err := tools.Ensure(ctx, o.Progress)
	if err != nil {
		return err
	}
	parts, err := o.parts(dir, root)
	if err != nil {
		return err
	}
	made, err := uki.Make(parts)
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	f, err := ukifile.Open(bytes.NewReader(made), int64(len(made)))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	measured, err := f.Measure()
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	var prediction bytes.Buffer
	if err := measured.WriteJSON(&prediction); err != nil {
		return err
	}
	o.print(f, measured)
	loader, err := os.ReadFile(efiProgram(root, LoaderFile))
	if err != nil {
		return fmt.Errorf("image: %w", err)
	}
	if err := o.sign(&made, &loader); err != nil {
		return err
	}
	for _, out := range []file{{LoaderFile, loader}, {UKIFile, made}, {PCR11File, prediction.Bytes()}} {
		if err := out.write(dir); err != nil {
			return fmt.Errorf("image: %w", err)
		}
	}
	return nil
}

// sign replaces the programs by signed ones if the builder has keys.
func (o UKIOptions) sign(programs ...*[]byte) error {
	signer, err := LoadSigner(o.Keys)
	if err != nil {
		return err
	}
	for _, program := range programs {
		if *program, err = signer.Sign(*program); err != nil {
			return err
		}
	}
	if name := signer.Name(); name != "" {
		fmt.Fprintf(o.Progress, "  signed for Secure Boot by %q\n", name)
	} else {
		fmt.Fprintf(o.Progress, "  not signed for Secure Boot: no %s.key in %q (mkimage keys makes one)\n", secureboot.DB, o.Keys)
	}
	return nil
}

// parts reads what the unified kernel image is made from and checks that it
// belongs together.
func (o UKIOptions) parts(dir string, root tools.Root) (uki.Parts, error) {
	text, err := os.ReadFile(filepath.Join(dir, "image.json"))
	if err != nil {
		return uki.Parts{}, fmt.Errorf("image: no %s image (mkimage build makes it): %w", o.Build, err)
	}
	var have receipt
	if err := json.Unmarshal(text, &have); err != nil {
		return uki.Parts{}, fmt.Errorf("image: %s: %w", filepath.Join(dir, "image.json"), err)
	}
	p := uki.Parts{Cmdline: o.Cmdline, OSRelease: osRelease(have.Meta), Uname: have.Kernel, SBAT: sbat(have.Meta)}
	for _, in := range []struct {
		path, sum string
		data      *[]byte
	}{
		{efiProgram(root, "linuxx64.efi.stub"), "", &p.Stub},
		{filepath.Join(dir, "vmlinuz"), have.KernelSHA256, &p.Kernel},
		{filepath.Join(dir, "initramfs.zst"), have.InitramfsSHA256, &p.Initrd},
	} {
		if *in.data, err = os.ReadFile(in.path); err != nil {
			return uki.Parts{}, fmt.Errorf("image: %w", err)
		}
		if in.sum != "" && digest(*in.data) != in.sum {
			return uki.Parts{}, fmt.Errorf("image: %s is not the file that image.json describes: build the image again", in.path)
		}
	}
	if have.MicrocodeSHA256 == "" {
		return p, nil
	}
	p.Microcode, err = os.ReadFile(filepath.Join(dir, microcodeFile))
	if err != nil {
		return uki.Parts{}, fmt.Errorf("image: %w", err)
	}
	if digest(p.Microcode) != have.MicrocodeSHA256 {
		return uki.Parts{}, fmt.Errorf("image: %s is not the file that image.json describes: build the image again", microcodeFile)
	}
	return p, nil
}

// efiProgram is a file of Debian's package systemd-boot-efi.
func efiProgram(root tools.Root, name string) string {
	return root.Path("usr", "lib", "systemd", "boot", "efi", name)
}

// osRelease is the .osrel section. systemd-boot compares IMAGE_VERSION, VERSION,
// VERSION_ID and BUILD_ID, whichever it finds first, before the file's name; as
// slots are ordered by the number in their names, the version goes by a name of
// our own.
func osRelease(m Meta) string {
	return fmt.Sprintf("ID=quantavirt\nNAME=QuantaVirt\nPRETTY_NAME=\"QuantaVirt %s\"\nQUANTAVIRT_VERSION=%s\nQUANTAVIRT_BUILD=%s\nQUANTAVIRT_ID=%s\n",
		m.Version, m.Version, m.Build, m.ID)
}

// sbat is our line of the .sbat section (shim's SBAT.md): component, generation,
// vendor, package, version, URL. The generation is raised when the images before
// must not boot any more.
func sbat(m Meta) string {
	return fmt.Sprintf("quantavirt,1,QuantaVirt,quantavirt,%s,-\n", m.Version)
}

func (o UKIOptions) print(f *ukifile.File, m ukifile.Measurement) {
	fmt.Fprintf(o.Progress, "  %-32s %10s\n", "section", "size")
	for _, s := range f.Sections {
		fmt.Fprintf(o.Progress, "  %-32s %10s\n", s.Name, kib(int64(s.Size)))
	}
	line := fmt.Sprintf("  %-32s %10s", UKIFile, kib(f.Size()))
	if aim, ok := ukiAims[o.Build]; ok {
		verdict := "under"
		if f.Size() > aim {
			verdict = "OVER"
		}
		line += fmt.Sprintf("  %s the aim of %s", verdict, kib(aim))
	}
	fmt.Fprintln(o.Progress, line)
	fmt.Fprintf(o.Progress, "  PCR %d will be %s\n", m.PCR, m.Value)
}
