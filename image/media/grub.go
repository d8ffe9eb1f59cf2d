package media

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quantavirt/image/tools"
	"quantavirt/internal/disklayout"
)

// grubPlatform is the directory of GRUB for BIOS in Debian's package.
const grubPlatform = "i386-pc"

// GRUB makes the boot code for BIOS from Debian's package: a core image that
// holds all modules that our grub.cfg needs.
func GRUB(ctx context.Context, root tools.Root) (disklayout.BIOS, error) {
	boot, err := os.ReadFile(grubFile(root, "boot.img"))
	if err != nil {
		return disklayout.BIOS{}, fmt.Errorf("media: %w", err)
	}
	core, err := grubImage(ctx, root, grubPlatform, disklayout.GRUBModules)
	return disklayout.BIOS{Boot: boot, Core: core}, err
}

func grubFile(root tools.Root, name string) string {
	return root.Path("usr", "lib", "grub", grubPlatform, name)
}

// grubImage runs grub-mkimage for a format of core image.
func grubImage(ctx context.Context, root tools.Root, format string, modules []string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "quantavirt-grub-")
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "core.img")
	args := append([]string{"-d", root.Path("usr", "lib", "grub", grubPlatform), "-O", format,
		"-p", disklayout.GRUBPrefix, "-o", out}, modules...)
	text, err := root.Command("grub-mkimage", args...).CombinedOutput()
	if err := errors.Join(err, context.Cause(ctx)); err != nil {
		return nil, fmt.Errorf("media: grub-mkimage: %w: %s", err, text)
	}
	core, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("media: %w", err)
	}
	return core, nil
}
