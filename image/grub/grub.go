// Package grub makes boot code for BIOS from Debian's package of GRUB.
package grub

import (
	"context"
	"errors"
	"fmt"
	"os"
	"path/filepath"

	"quantavirt/image/tools"
	"quantavirt/internal/disklayout"
)

// Platform is the directory of GRUB for BIOS in Debian's package, and the
// format of its core images for disks.
const Platform = "i386-pc"

// BIOS makes the boot code of disks: a core image that holds all modules that
// our grub.cfg needs.
func BIOS(ctx context.Context, root tools.Root) (disklayout.BIOS, error) {
	boot, err := os.ReadFile(root.Path("usr", "lib", "grub", Platform, "boot.img"))
	if err != nil {
		return disklayout.BIOS{}, fmt.Errorf("grub: %w", err)
	}
	core, err := Image(ctx, root, Platform, "")
	return disklayout.BIOS{Boot: boot, Core: core}, err
}

// Disc makes the boot image of an ISO, which tells grub.cfg that it is one.
func Disc(ctx context.Context, root tools.Root) ([]byte, error) {
	return Image(ctx, root, Platform+"-eltorito", "set "+disklayout.GRUBDisc+"=1\n")
}

// Image runs grub-mkimage for a format of core image. The commands, if there are
// any, are part of it and run first.
func Image(ctx context.Context, root tools.Root, format, commands string) ([]byte, error) {
	dir, err := os.MkdirTemp("", "quantavirt-grub-")
	if err != nil {
		return nil, fmt.Errorf("grub: %w", err)
	}
	defer os.RemoveAll(dir)
	out := filepath.Join(dir, "core.img")
	args := []string{"-d", root.Path("usr", "lib", "grub", Platform), "-O", format, "-p", disklayout.GRUBPrefix, "-o", out}
	if commands != "" {
		early := filepath.Join(dir, "early.cfg")
		if err := os.WriteFile(early, []byte(commands), 0o644); err != nil {
			return nil, fmt.Errorf("grub: %w", err)
		}
		args = append(args, "-c", early)
	}
	args = append(args, disklayout.GRUBModules...)
	text, err := root.Command("grub-mkimage", args...).CombinedOutput()
	if err := errors.Join(err, context.Cause(ctx)); err != nil {
		return nil, fmt.Errorf("grub: grub-mkimage: %w: %s", err, text)
	}
	core, err := os.ReadFile(out)
	if err != nil {
		return nil, fmt.Errorf("grub: %w", err)
	}
	return core, nil
}
