package guest

import (
	"archive/tar"
	"context"
	"encoding/binary"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"quantavirt/image/tools"
)

// BootDisks are the disk images that guests boot from by SeaBIOS.
type BootDisks struct {
	Debian string // with GRUB; root logs in with the password "debian"
	IPXE   string // Debian's ipxe.iso as it is, which is a disk image too
}

// smallSet is a Debian with no more than an init system and a login prompt on the serial
// port, which starts in half a minute under TCG.
var smallSet = debianSet{name: "bios", small: true,
	packages: []string{
		"base-files", "base-passwd", "bash", "coreutils", "dash", "diffutils", "dpkg", "findutils", "grep", "hostname", "init-system-helpers",
		"libc-bin", "login", "mount", "passwd", "perl-base", "procps", "sed", "util-linux",
		"sysvinit-core", "initscripts", "e2fsprogs", "kmod", "initramfs-tools", "zstd", "linux-image-cloud-amd64",
	},
	hook: `sed -i s/MODULES=most/MODULES=list/ "$1/etc/initramfs-tools/initramfs.conf"; ` +
		`printf "virtio_blk\next4\n" >> "$1/etc/initramfs-tools/modules"; chroot "$1" update-initramfs -u; ` +
		`echo root:debian | chroot "$1" chpasswd; echo bios > "$1/etc/hostname"; ` +
		`sed -i -e "s/^[1-6]:/#&/" -e "s/^#T0:23/T0:23/;s/ttyS0 9600 vt100/ttyS0 115200 vt100/" "$1/etc/inittab"; ` +
		// Services that a machine without their hardware does not need, and that take a
		// quarter of a minute under TCG.
		`for s in udev hwclock.sh brightness mountnfs.sh mountnfs-bootclean.sh mount-configfs procps checkfs.sh bootlogs; do rm -f "$1"/etc/rc?.d/S??$s; done; ` +
		`echo "UUID=` + rootUUID + ` / ext4 errors=remount-ro 0 1" > "$1/etc/fstab"`,
}

// installedSet is what the installer leaves on a machine without a screen, systemd, all
// services and all drivers included.
var installedSet = debianSet{name: "installed", variant: "important",
	packages: []string{"linux-image-amd64", "initramfs-tools", "zstd", "dbus", "libpam-systemd", "openssh-server"},
	hook: `echo root:debian | chroot "$1" chpasswd; echo debian > "$1/etc/hostname"; ` +
		`printf "auto lo\niface lo inet loopback\n" > "$1/etc/network/interfaces"; ` +
		`echo "UUID=` + rootUUID + ` / ext4 errors=remount-ro 0 1" > "$1/etc/fstab"`,
}

const (
	rootUUID = "5156b105-0000-4000-8000-000000000001"
	// partStart is where the only partition begins, in bytes; GRUB's core image lies
	// in the gap before it.
	partStart   = 1 << 20
	sectorBytes = 512
)

// grubModules are what grub-install puts into the core image of such a disk.
var grubModules = []string{"biosdisk", "part_msdos", "ext2"}

// NewBootDisks makes the images in dir: Debian as the installer leaves it, or a small one.
// What has to be installed is kept in cache.
func NewBootDisks(ctx context.Context, root tools.Root, cache, dir string, small bool, progress io.Writer) (BootDisks, error) {
	if err := os.MkdirAll(dir, 0o755); err != nil {
		return BootDisks{}, err
	}
	set, size := installedSet, int64(3<<30)
	if small {
		set, size = smallSet, 512<<20
	}
	d := BootDisks{Debian: filepath.Join(dir, set.name+".img"), IPXE: root.Path("usr", "lib", "ipxe", "ipxe.iso")}
	return d, debianDisk(ctx, root, set, cache, d.Debian, size, progress)
}

// debianDisk makes a disk that boots a Debian. It is made again only from other packages.
func debianDisk(ctx context.Context, root tools.Root, set debianSet, cache, path string, size int64, progress io.Writer) error {
	archive, err := debianArchive(ctx, set, cache, progress)
	if err != nil {
		return err
	}
	key, stamp := archive+"\n"+root.Dir+"\n"+debianMenu(nil), path+".from"
	if made, err := os.ReadFile(stamp); err == nil && string(made) == key {
		return nil
	}
	_ = os.Remove(stamp)
	in, err := os.Open(archive)
	if err != nil {
		return err
	}
	defer in.Close()
	if err := grubDisk(root, path, size, in, set.small); err != nil {
		return fmt.Errorf("guest: Debian for BIOS: %w", err)
	}
	return os.WriteFile(stamp, []byte(key), 0o644)
}

// debianMenu is the entry that update-grub makes for the newest kernel.
func debianMenu(boot []string) string {
	release := ""
	for _, name := range boot {
		if r, ok := strings.CutPrefix(name, "vmlinuz-"); ok {
			release = r
		}
	}
	return "menuentry 'Debian GNU/Linux' --class debian --class gnu-linux --class gnu --class os {\n" +
		"  insmod part_msdos\n  insmod ext2\n" +
		"  search --no-floppy --fs-uuid --set=root " + rootUUID + "\n" +
		"  echo 'Loading Linux " + release + " ...'\n" +
		"  linux /boot/vmlinuz-" + release + " root=UUID=" + rootUUID + " ro quiet mitigations=off console=ttyS0,115200\n" +
		"  echo 'Loading initial ramdisk ...'\n" +
		"  initrd /boot/initrd.img-" + release + "\n}\n"
}

// grubDisk makes a disk of one ext4 partition with the files of a tar archive, as
// grub-install and update-grub leave it with GRUB_TERMINAL=serial and
// GRUB_TIMEOUT=0: boot.img in the first sector, the core image behind it, modules
// and menu below /boot/grub.
func grubDisk(root tools.Root, path string, size int64, files io.Reader, small bool) error {
	tarball := path + ".tar"
	defer os.Remove(tarball)
	if err := withGRUB(root, tarball, files, small); err != nil {
		return err
	}
	if err := sparse(path, size); err != nil {
		return err
	}
	mkfs := root.Command("mke2fs", "-q", "-F", "-t", "ext4", "-b", "4096", "-L", "root", "-U", rootUUID, "-d", tarball,
		"-E", fmt.Sprintf("offset=%d", partStart), path, fmt.Sprintf("%dk", (size-partStart)>>10))
	mkfs.Env = append(os.Environ(), "LC_ALL=C.UTF-8")
	if out, err := mkfs.CombinedOutput(); err != nil {
		return fmt.Errorf("mke2fs: %w: %s", err, out)
	}
	return installGRUB(root, path, size)
}

// withGRUB copies the archive, a small one without the drivers that it never loads, and
// adds GRUB's modules and its menu, which is made from the names in /boot.
func withGRUB(root tools.Root, target string, files io.Reader, small bool) error {
	out, err := os.Create(target)
	if err != nil {
		return err
	}
	defer out.Close()
	w := tar.NewWriter(out)
	boot, err := copyTree(w, tar.NewReader(files), small)
	if err != nil {
		return err
	}
	if err := addDirs(w, "./boot/grub/", "./boot/grub/i386-pc/"); err != nil {
		return err
	}
	lib := root.Path("usr", "lib", "grub", "i386-pc")
	modules, err := filepath.Glob(filepath.Join(lib, "*.[ml][os][dt]"))
	if err != nil {
		return err
	}
	for _, file := range modules {
		data, err := os.ReadFile(file)
		if err != nil {
			return err
		}
		if err := addFile(w, "./boot/grub/i386-pc/"+filepath.Base(file), data); err != nil {
			return err
		}
	}
	const head = "insmod part_msdos\ninsmod ext2\nserial --unit=0 --speed=115200\nterminal_input serial\nterminal_output serial\nset default=0\nset timeout=0\n"
	if err := addFile(w, "./boot/grub/grub.cfg", []byte(head+debianMenu(boot))); err != nil {
		return err
	}
	return w.Close()
}

func addDirs(w *tar.Writer, names ...string) error {
	for _, name := range names {
		if err := w.WriteHeader(&tar.Header{Name: name, Mode: 0o755, Typeflag: tar.TypeDir, Format: tar.FormatGNU}); err != nil {
			return err
		}
	}
	return nil
}

// copyTree copies all, of a small one all but the modules that no virtual machine needs,
// and returns the names in /boot.
func copyTree(w *tar.Writer, r *tar.Reader, small bool) (boot []string, err error) {
	for {
		h, err := r.Next()
		if errors.Is(err, io.EOF) {
			return boot, nil
		}
		if err != nil {
			return nil, err
		}
		name := strings.TrimPrefix(h.Name, ".")
		if dir, base := filepath.Split(name); dir == "/boot/" {
			boot = append(boot, base)
		}
		if small && h.Typeflag == tar.TypeReg && isDropped(name) {
			continue
		}
		if err := w.WriteHeader(h); err != nil {
			return nil, err
		}
		if _, err := io.Copy(w, r); err != nil {
			return nil, err
		}
	}
}

func isDropped(name string) bool {
	for _, part := range dropped {
		if strings.Contains(name, part) && !strings.Contains(name, "/kernel/fs/ext4/") && !strings.Contains(name, "/kernel/fs/jbd2/") &&
			!strings.Contains(name, "/kernel/fs/mbcache") {
			return true
		}
	}
	return false
}

// installGRUB does what grub-install does on the device: the core image goes behind
// the first sector, where boot.img looks for it; the MBR gets one active partition.
func installGRUB(root tools.Root, path string, size int64) error {
	lib := root.Path("usr", "lib", "grub", "i386-pc")
	core := path + ".core"
	defer os.Remove(core)
	args := append([]string{"-d", lib, "-O", "i386-pc", "-p", "(,msdos1)/boot/grub", "-o", core}, grubModules...)
	if out, err := root.Command("grub-mkimage", args...).CombinedOutput(); err != nil {
		return fmt.Errorf("grub-mkimage: %w: %s", err, out)
	}
	image, err := os.ReadFile(core)
	if err != nil {
		return err
	}
	if len(image) > partStart-sectorBytes {
		return fmt.Errorf("the core image of %d bytes does not fit before the partition", len(image))
	}
	mbr, err := os.ReadFile(filepath.Join(lib, "boot.img"))
	if err != nil {
		return err
	}
	const driveCheck, table, kindLinux = 0x66, 446, 0x83
	mbr[driveCheck], mbr[driveCheck+1] = 0x90, 0x90 // as grub-bios-setup: no floppy here
	clear(mbr[table : sectorBytes-2])               // the floppy's code of boot.img
	entry := mbr[table : table+16]
	copy(entry, []byte{0x80, 0xfe, 0xff, 0xff, kindLinux, 0xfe, 0xff, 0xff})
	binary.LittleEndian.PutUint32(entry[8:], partStart/sectorBytes)
	binary.LittleEndian.PutUint32(entry[12:], uint32((size-partStart)/sectorBytes))
	f, err := os.OpenFile(path, os.O_WRONLY, 0)
	if err != nil {
		return err
	}
	_, err = f.WriteAt(append(mbr, image...), 0)
	return errors.Join(err, f.Close())
}

// QEMUArgs attach the disks to a node, by the serial numbers that the tests of
// hv/vmm look for. What is written to them is forgotten.
func (d BootDisks) QEMUArgs() []string {
	var args []string
	for _, disk := range []struct{ name, path string }{{"debian", d.Debian}, {"ipxe", d.IPXE}} {
		args = append(args, "-drive", "if=none,id="+disk.name+",format=raw,snapshot=on,file="+disk.path,
			"-device", "virtio-blk-pci,drive="+disk.name+",serial=boot-"+disk.name)
	}
	return args
}
