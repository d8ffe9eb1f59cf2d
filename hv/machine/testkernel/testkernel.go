// Package testkernel is a small 64-bit kernel of our own that looks at the machine
// it runs on: timers, interrupts, CPUs, PCI, MSI-X, ACPI and CPUID. Its sources, in
// src, are C and a page of assembler; it is started by PVH, prints one line a check
// on COM1 ("ok suite: what" or "FAIL suite: what: why"), ends with "done" and
// powers off by ACPI. src/main.c says what its command line knows.
package testkernel

import (
	"context"
	"embed"
	"fmt"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
)

//go:embed src
var sources embed.FS

// flags make gcc leave alone what an operating system would have to provide: the
// red zone, which interrupts would overwrite, and SSE registers.
var flags = []string{"-O2", "-Wall", "-Wextra", "-std=gnu11", "-m64", "-ffreestanding", "-nostdlib", "-static", "-no-pie", "-fno-pic",
	"-mno-red-zone", "-mgeneral-regs-only", "-fno-stack-protector", "-fno-asynchronous-unwind-tables", "-fcf-protection=none",
	"-Wl,--build-id=none", "-Wl,-z,noexecstack", "-Wl,-z,max-page-size=4096", "-Wl,--no-warn-rwx-segments", "-Wl,-T,kernel.ld"}

// Build compiles the kernel with the gcc of the path into dir, which exists, and
// returns the path of the ELF file. An error shows what gcc says.
func Build(ctx context.Context, dir string) (string, error) {
	work, err := os.MkdirTemp("", "testkernel-")
	if err != nil {
		return "", err
	}
	defer os.RemoveAll(work)
	src, err := fs.Sub(sources, "src")
	if err != nil {
		return "", err
	}
	if err := os.CopyFS(work, src); err != nil {
		return "", fmt.Errorf("testkernel: %w", err)
	}
	out := filepath.Join(dir, "testkernel")
	args := append([]string{"-o", out}, flags...)
	for _, pattern := range []string{"*.S", "*.c"} {
		names, err := fs.Glob(src, pattern)
		if err != nil {
			return "", err
		}
		args = append(args, names...)
	}
	gcc := exec.CommandContext(ctx, "gcc", args...)
	gcc.Dir = work
	if text, err := gcc.CombinedOutput(); err != nil {
		return "", fmt.Errorf("testkernel: gcc: %w: %s", err, text)
	}
	return out, nil
}
