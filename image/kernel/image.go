package kernel

import (
	"bytes"
	"encoding/binary"
	"fmt"
	"os"
	"path/filepath"
	"strings"
)

// Custom is a kernel of the user's own: a bzImage and the directory of its
// modules, which must have been through depmod.
func Custom(image, modules string) (Kernel, error) {
	release, err := imageRelease(image)
	if err != nil {
		return Kernel{}, err
	}
	if dir := filepath.Base(filepath.Clean(modules)); dir != release {
		return Kernel{}, fmt.Errorf("kernel: %s is %s, but the modules are those of %s", image, release, dir)
	}
	for _, name := range []string{"modules.dep", "modules.alias", "modules.builtin"} {
		if _, err := os.Stat(filepath.Join(modules, name)); err != nil {
			return Kernel{}, fmt.Errorf("kernel: run depmod for the modules: %w", err)
		}
	}
	return Kernel{Image: image, Modules: modules, Release: release}, nil
}

// imageRelease reads the release from a bzImage, as the x86 boot protocol
// (Documentation/arch/x86/boot.rst) has it: the 16-bit word at 0x20e is the
// offset, less 0x200, of a string that begins with the release.
func imageRelease(path string) (string, error) {
	f, err := os.Open(path)
	if err != nil {
		return "", fmt.Errorf("kernel: %w", err)
	}
	defer f.Close()
	head := make([]byte, 1<<16)
	n, _ := f.ReadAt(head, 0)
	head = head[:n]
	if len(head) < 0x210 || string(head[0x202:0x206]) != "HdrS" {
		return "", fmt.Errorf("kernel: %s is not a bzImage", path)
	}
	at := int(binary.LittleEndian.Uint16(head[0x20e:])) + 0x200
	if at >= len(head) {
		return "", fmt.Errorf("kernel: %s: its version lies at %#x, outside of its header", path, at)
	}
	text, _, ok := bytes.Cut(head[at:], []byte{0})
	release, _, _ := strings.Cut(string(text), " ")
	if !ok || release == "" {
		return "", fmt.Errorf("kernel: %s has no version", path)
	}
	return release, nil
}
