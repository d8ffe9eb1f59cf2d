package tools

import (
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"slices"
	"strings"

	"quantavirt/image/kernel"
)

// Kernel is a kernel of the root.
type Kernel = kernel.Kernel

// Root is a directory of unpacked Debian packages.
type Root struct {
	Dir string
}

const triplet = "x86_64-linux-gnu"

// Path joins names to the root's directory.
func (r Root) Path(name ...string) string {
	return filepath.Join(append([]string{r.Dir}, name...)...)
}

// loader returns the root's dynamic loader and its arguments before a program.
func (r Root) loader() (path string, args []string) {
	lib := r.Path("usr", "lib", triplet)
	dirs := []string{lib, filepath.Join(lib, "pulseaudio"), filepath.Join(lib, "systemd"), filepath.Join(lib, "swtpm")}
	return filepath.Join(lib, "ld-linux-x86-64.so.2"), []string{"--library-path", strings.Join(dirs, ":")}
}

// QEMU returns the program and the first arguments that run the root's
// qemu-system-x86_64 with its own libraries and firmware.
func (r Root) QEMU() (path string, args []string) {
	path, args = r.loader()
	return path, append(args, r.Path("usr", "bin", "qemu-system-x86_64"),
		"-L", r.Path("usr", "share", "qemu"), "-L", r.Path("usr", "share", "seabios"))
}

// Command returns a command that runs a program of the root, looked up in
// usr/sbin and usr/bin. A missing program is reported when the command is started.
func (r Root) Command(name string, args ...string) *exec.Cmd {
	program, err := r.program(name)
	if err != nil {
		cmd := exec.Command(name, args...)
		cmd.Err = err
		return cmd
	}
	if static(program) {
		return exec.Command(program, args...)
	}
	path, first := r.loader()
	// depmod, mkfs.ext4 and the like are names of multi-call programs.
	first = append(first, "--argv0", name, program)
	return exec.Command(path, append(first, args...)...)
}

func (r Root) program(name string) (string, error) {
	for _, dir := range []string{"usr/sbin", "usr/bin"} {
		path := r.Path(dir, name)
		if info, err := os.Stat(path); err == nil && info.Mode().IsRegular() {
			return path, nil
		}
	}
	return "", fmt.Errorf("tools: %s has no program %s: %w", r.Dir, name, os.ErrNotExist)
}

// static tells whether a program is not an ELF file with an interpreter, and so
// runs without the loader: a static binary.
func static(path string) bool {
	f, err := os.Open(path)
	if err != nil {
		return false
	}
	defer f.Close()
	head := make([]byte, 4096)
	n, _ := f.Read(head)
	return !bytes.Contains(head[:n], []byte("/ld-linux-x86-64.so.2\x00"))
}

// Kernel returns Debian's "cloud" kernel (made for virtual machines) or its
// "full" one (for all hardware).
func (r Root) Kernel(flavour string) (Kernel, error) {
	if flavour != "cloud" && flavour != "full" {
		return Kernel{}, fmt.Errorf("tools: kernel %q: want cloud or full", flavour)
	}
	return kernel.Find(r.Dir, func(release string) bool {
		return strings.HasSuffix(release, "-amd64") && strings.Contains(release, "-cloud-") == (flavour == "cloud")
	})
}

// Certificates returns the CA certificates of the root, as one PEM bundle in
// the order of their names.
func (r Root) Certificates() ([]byte, error) {
	files, err := filepath.Glob(r.Path("usr", "share", "ca-certificates", "mozilla", "*.crt"))
	if err != nil {
		return nil, err
	}
	if len(files) == 0 {
		return nil, fmt.Errorf("tools: no CA certificates in %s: %w", r.Dir, os.ErrNotExist)
	}
	slices.Sort(files)
	var bundle bytes.Buffer
	for _, file := range files {
		data, err := os.ReadFile(file)
		if err != nil {
			return nil, fmt.Errorf("tools: %w", err)
		}
		bundle.Write(bytes.TrimSpace(data))
		bundle.WriteByte('\n')
	}
	return bundle.Bytes(), nil
}
