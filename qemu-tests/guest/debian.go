package guest

import (
	"archive/tar"
	"bytes"
	"cmp"
	"context"
	"crypto/sha256"
	_ "embed"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"

	"quantavirt/image/tools"
)

// Files are what a VM is made from.
type Files struct {
	Kernel string
	Initrd string
	Disk   string // raw image of the root file system, "" for a guest without one
}

// debianPackages is a Debian that can boot, configure its network and fetch a
// page; dhcpcd and curl are what a user would have.
var debianPackages = []string{
	"base-files", "base-passwd", "bash", "coreutils", "dash", "diffutils", "dpkg", "findutils", "grep", "hostname", "init-system-helpers",
	"libc-bin", "mount", "perl-base", "procps", "sed", "sysvinit-utils", "util-linux",
	"busybox-static", "ca-certificates", "curl", "dhcpcd-base", "iproute2", "kmod", "initramfs-tools", "zstd", "linux-image-cloud-amd64",
}

//go:embed debian-init.sh
var debianInit []byte

// diskMiB is the size of the Debian guest's disk.
const diskMiB = 256

// Debian makes the demonstration guest in dir. The packages are unpacked and
// configured once and kept in cache; the quantavirt command is put in, so that
// the guest can talk to its host.
func Debian(ctx context.Context, root tools.Root, cache, dir, quantavirt string, progress io.Writer) (Files, error) {
	archive, err := debianArchive(ctx, demoSet, cache, progress)
	if err != nil {
		return Files{}, err
	}
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return Files{}, err
	}
	f := Files{
		Kernel: filepath.Join(dir, "vmlinuz"),
		Initrd: filepath.Join(dir, "initrd.img"),
		Disk:   filepath.Join(dir, "root.img"),
	}
	tarball := filepath.Join(dir, "root.tar")
	defer os.Remove(tarball)
	if err := f.repack(archive, tarball, quantavirt); err != nil {
		return Files{}, fmt.Errorf("guest: repack %s: %w", archive, err)
	}
	if err := sparse(f.Disk, diskMiB<<20); err != nil {
		return Files{}, err
	}
	mkfs := root.Command("mke2fs", "-q", "-F", "-t", "ext4", "-L", "demo-root", "-d", tarball, f.Disk)
	mkfs.Env = append(os.Environ(), "LC_ALL=C.UTF-8") // the archive has names beyond ASCII
	if out, err := mkfs.CombinedOutput(); err != nil {
		return Files{}, fmt.Errorf("guest: mke2fs: %w: %s", err, out)
	}
	return f, nil
}

// debianSet is what a Debian is made of: packages, and a hook that mmdebstrap runs
// when they are configured.
type debianSet struct {
	name     string
	variant  string // of mmdebstrap; "" for nothing but the packages
	small    bool   // without drivers that a guest never loads
	packages []string
	hook     string
}

// demoSet is the Debian of the demonstration.
var demoSet = debianSet{name: "guest", packages: debianPackages, hook: `sed -i s/MODULES=most/MODULES=list/ "$1/etc/initramfs-tools/initramfs.conf"; ` +
	`echo virtio_blk >> "$1/etc/initramfs-tools/modules"; chroot "$1" update-initramfs -u`}

// debianArchive returns the tar archive of a configured Debian, made by
// mmdebstrap if the cache does not hold it.
func debianArchive(ctx context.Context, set debianSet, cache string, progress io.Writer) (string, error) {
	args := []string{
		"--variant=" + cmp.Or(set.variant, "custom"), "--format=tar",
		"--include=" + strings.Join(set.packages, ","),
		"--aptopt=Apt::Install-Recommends \"false\"",
		"--dpkgopt=path-exclude=/usr/share/man/*", "--dpkgopt=path-exclude=/usr/share/locale/*", "--dpkgopt=path-exclude=/usr/share/doc/*",
		"--customize-hook=" + set.hook,
		"trixie",
	}
	key := sha256.Sum256([]byte(strings.Join(args, "\x00")))
	path := filepath.Join(cache, "debian-"+set.name+"-"+hex.EncodeToString(key[:6])+".tar")
	if _, err := os.Stat(path); err == nil {
		return path, nil
	}
	if err := os.MkdirAll(cache, 0o755); err != nil {
		return "", err
	}
	part := path + ".part"
	defer os.Remove(part)
	sources, err := tools.Sources()
	if err != nil {
		return "", err
	}
	args = append(append(args, part), sources...)
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	var log bytes.Buffer
	cmd.Stdout, cmd.Stderr = progress, io.MultiWriter(progress, &log)
	if err := cmd.Run(); err != nil {
		return "", fmt.Errorf("guest: mmdebstrap: %w: %s", err, lastLines(log.Bytes(), 10))
	}
	return path, os.Rename(part, path)
}

// repack copies the archive: /boot goes into files beside the disk, modules
// that no virtual machine needs are dropped, our init and command are added.
func (f Files) repack(archive, target, quantavirt string) error {
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close()
	out, err := os.Create(target)
	if err != nil {
		return err
	}
	defer out.Close()
	r, w := tar.NewReader(in), tar.NewWriter(out)
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			break
		}
		if err != nil {
			return err
		}
		if err := f.copyEntry(w, h, r); err != nil {
			return fmt.Errorf("%s: %w", h.Name, err)
		}
	}
	if err := addFile(w, "./usr/sbin/demo-init", debianInit); err != nil {
		return err
	}
	command, err := os.ReadFile(quantavirt)
	if err != nil {
		return err
	}
	if err := addFile(w, "./usr/local/bin/quantavirt", command); err != nil {
		return err
	}
	return w.Close()
}

// dropped are the parts of /usr/lib/modules that a guest of ours never loads.
var dropped = []string{"/kernel/drivers/net/ethernet/", "/kernel/drivers/scsi/", "/kernel/drivers/gpu/", "/kernel/drivers/infiniband/", "/kernel/fs/"}

func (f Files) copyEntry(w *tar.Writer, h *tar.Header, r io.Reader) error {
	name := strings.TrimPrefix(h.Name, ".")
	if h.Typeflag == tar.TypeReg && strings.HasPrefix(name, "/boot/") {
		switch base := filepath.Base(name); {
		case strings.HasPrefix(base, "vmlinuz-"):
			return writeFile(f.Kernel, r)
		case strings.HasPrefix(base, "initrd.img-"):
			return writeFile(f.Initrd, r)
		}
		return nil
	}
	for _, part := range dropped {
		if strings.Contains(name, part) && h.Typeflag == tar.TypeReg {
			return nil
		}
	}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := io.Copy(w, r)
	return err
}

func addFile(w *tar.Writer, name string, data []byte) error {
	h := &tar.Header{Name: name, Mode: 0o755, Size: int64(len(data)), Typeflag: tar.TypeReg, Format: tar.FormatGNU}
	if err := w.WriteHeader(h); err != nil {
		return err
	}
	_, err := w.Write(data)
	return err
}

func writeFile(path string, r io.Reader) error {
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	_, err = io.Copy(f, r)
	return errors.Join(err, f.Close())
}

// sparse makes an empty file of a size, in place of an old one.
func sparse(path string, size int64) error {
	if err := os.Remove(path); err != nil && !errors.Is(err, fs.ErrNotExist) {
		return err
	}
	f, err := os.Create(path)
	if err != nil {
		return err
	}
	return errors.Join(f.Truncate(size), f.Close())
}

func lastLines(data []byte, n int) string {
	lines := strings.Split(strings.TrimSpace(string(data)), "\n")
	if len(lines) > n {
		lines = lines[len(lines)-n:]
	}
	return strings.Join(lines, "\n")
}
