package bench

import (
	"bytes"
	"context"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"time"

	"quantavirt/image"
	"quantavirt/image/media"
	"quantavirt/image/uki"
	"quantavirt/internal/ukifile"
	"quantavirt/qemu-tests/lab"
)

// usb starts the hardware build from a stick, and a bare init from the same
// stick: the same firmware reads the same unified kernel image, in which only the
// word rdinit= says what the kernel starts.
func (r *run) usb(ctx context.Context) error {
	stick, err := r.stick(ctx)
	if err != nil {
		return err
	}
	o := lab.Options{
		Name: "bench-usb", Build: "hardware", Firmware: lab.FirmwareUEFI, Memory: 3072,
		Medium: lab.Medium{File: stick, As: lab.MediumUSB},
	}
	ready, bare, err := r.inTurn(ctx, o, func(n *lab.Node) error {
		steps, _, err := look(ctx, n)
		r.rep.USB.Steps = steps
		return err
	})
	if err != nil {
		return err
	}
	r.rep.USB.compare(ready, bare)
	r.rep.USB.print(r.opts.Out, "usb", "power-on to API")
	return nil
}

// stick makes a disk of the hardware build whose initramfs also holds the bare
// init.
func (r *run) stick(ctx context.Context) (string, error) {
	archive, err := r.bareArchive()
	if err != nil {
		return "", err
	}
	built, dir := filepath.Join(r.root, "build", "image", "hardware"), filepath.Join(r.root, "build", "bench", "stick")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return "", err
	}
	unified, err := r.unifiedWith(filepath.Join(built, image.UKIFile), archive)
	if err != nil {
		return "", fmt.Errorf("the hardware build (make media BUILD=hardware makes it): %w", err)
	}
	if err := os.WriteFile(filepath.Join(dir, image.UKIFile), unified, 0o644); err != nil {
		return "", err
	}
	for _, name := range []string{"image.json", image.LoaderFile, image.SBOMFile} {
		data, err := os.ReadFile(filepath.Join(built, name))
		if err != nil {
			return "", err
		}
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o644); err != nil {
			return "", err
		}
	}
	fmt.Fprintf(r.opts.Out, "usb: the unified kernel image has %.2f MiB\n", float64(len(unified))/(1<<20))
	err = media.MakeDisk(ctx, r.tool, media.Options{Dir: dir, Time: time.Date(2026, 1, 1, 0, 0, 0, 0, time.UTC), Progress: io.Discard})
	return filepath.Join(dir, media.DiskFile), err
}

// unifiedWith makes a unified kernel image anew with an archive before its
// initramfs.
func (r *run) unifiedWith(path, archive string) ([]byte, error) {
	data, err := os.ReadFile(path)
	if err != nil {
		return nil, err
	}
	f, err := ukifile.Open(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		return nil, err
	}
	section := make(map[string][]byte)
	for _, name := range []string{ukifile.Linux, ukifile.Initrd, ukifile.Microcode, ukifile.Cmdline, ukifile.OSRelease, ukifile.Uname} {
		s, err := f.Section(name)
		if err != nil {
			return nil, err
		}
		if section[name], err = io.ReadAll(s); err != nil {
			return nil, err
		}
	}
	first, err := os.ReadFile(archive)
	if err != nil {
		return nil, err
	}
	first = append(first, make([]byte, -len(first)&3)...) // archives begin at a multiple of four bytes
	stub, err := os.ReadFile(r.tool.Path("usr", "lib", "systemd", "boot", "efi", "linuxx64.efi.stub"))
	if err != nil {
		return nil, err
	}
	return uki.Make(uki.Parts{
		Stub: stub, Kernel: section[ukifile.Linux], Initrd: append(first, section[ukifile.Initrd]...), Microcode: section[ukifile.Microcode],
		Cmdline: string(section[ukifile.Cmdline]), OSRelease: string(section[ukifile.OSRelease]), Uname: string(section[ukifile.Uname]),
	})
}
