package tools

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"time"

	"golang.org/x/sys/unix"
)

// set is what goes into a root.
type set struct {
	name       string   // of the root
	components string   // of Debian's archive
	packages   []string // their dependencies come with them
}

// base is what every build and test needs.
var base = set{name: "root", components: "main", packages: []string{
	"qemu-system-x86", "qemu-utils", "qemu-system-data", "seabios", "ovmf", "ipxe-qemu", // the machine under test
	"ipxe",                                                 // network boot programs that quantavirt-netboot hands out
	"linux-image-cloud-amd64", "linux-image-amd64", "kmod", // kernels, and depmod
	"e2fsprogs", "libarchive13t64", "zstd", // file systems (also made from tar archives) and the archive
	"dosfstools",       // repairs the EFI system partition
	"ca-certificates",  // into the image; brings openssl, the peer of cryptography tests
	"busybox-static",   // the bare init that the benchmark compares with
	"swtpm",            // a TPM for machines under test
	"cryptsetup-bin",   // reads and makes LUKS2 without us, in tests
	"systemd-boot-efi", // stub and boot loader for UEFI
	"grub-pc-bin",      // boot loader for BIOS
	"memtest86+",       // a guest that tests boot through SeaBIOS
}}

// firmware is what processors and network cards of the hardware build load.
// It is a root of its own, as it is not free software and not every mirror has
// that component. main holds what intel-microcode depends on.
var firmware = set{name: "firmware", components: "main non-free-firmware", packages: []string{
	"amd64-microcode", "intel-microcode",
	"firmware-bnx2x", "firmware-intel-misc", "firmware-misc-nonfree", "firmware-qlogic", "firmware-realtek",
}}

// guests is what runs in guests of tests and is large: a root of its own, so that
// builds do without.
var guests = set{name: "guests", components: "main", packages: []string{
	"fio", // writes and verifies disks
}}

// pins prefers backports for QEMU, which has vfio-user from 10.1 on, and for
// the firmware that belongs to it.
const pins = `Package: src:qemu src:seabios\nPin: release n=` + Suite + `-backports\nPin-Priority: 990\n`

// packagesFile, in the root, lists what was unpacked.
const packagesFile = "packages.txt"

// ownersFile, in the root, says for every file which package it is of.
const ownersFile = "owners.txt"

// CacheDir is where the project keeps what it downloads and unpacks:
// $XDG_CACHE_HOME/quantavirt, by default ~/.cache/quantavirt.
func CacheDir() (string, error) {
	base, err := os.UserCacheDir()
	if err != nil {
		return "", fmt.Errorf("tools: where to cache: %w", err)
	}
	return filepath.Join(base, "quantavirt"), nil
}

// Ensure returns the root of Debian packages. It unpacks it if the cache does
// not hold it, which takes from half a minute to a few minutes, and then writes
// what it does to progress at least every few seconds.
func Ensure(ctx context.Context, progress io.Writer) (Root, error) {
	return ensure(ctx, base, progress, false)
}

// Firmware returns the root of firmware and microcode packages, and unpacks it
// like Ensure.
func Firmware(ctx context.Context, progress io.Writer) (Root, error) {
	return ensure(ctx, firmware, progress, false)
}

// Guests returns the root of programs that run in guests of tests, and unpacks it
// like Ensure.
func Guests(ctx context.Context, progress io.Writer) (Root, error) {
	return ensure(ctx, guests, progress, false)
}

// Refresh is Ensure with a root that is made anew, to take over newer versions
// of the packages.
func Refresh(ctx context.Context, progress io.Writer) (Root, error) {
	if root, err := place(firmware); err == nil && root.complete() {
		if _, err := ensure(ctx, firmware, progress, true); err != nil {
			return Root{}, err
		}
	}
	return ensure(ctx, base, progress, true)
}

func ensure(ctx context.Context, s set, progress io.Writer, anew bool) (Root, error) {
	root, err := place(s)
	if err != nil {
		return Root{}, err
	}
	if !anew && root.complete() {
		return root, nil
	}
	if err := os.MkdirAll(filepath.Dir(root.Dir), 0o755); err != nil {
		return Root{}, fmt.Errorf("tools: %w", err)
	}
	unlock, err := lock(ctx, root.Dir+".lock", progress)
	if err != nil {
		return Root{}, err
	}
	defer unlock()
	if !anew && root.complete() { // made by the one we waited for
		return root, nil
	}
	if err := root.make(ctx, s, progress); err != nil {
		return Root{}, fmt.Errorf("tools: make the root of Debian packages (%s): %w", s.components, err)
	}
	return root, nil
}

// place is where the root of a set belongs.
func place(s set) (Root, error) {
	cache, err := CacheDir()
	if err != nil {
		return Root{}, err
	}
	return Root{Dir: filepath.Join(cache, s.name+"-"+Suite+"-amd64-"+s.key())}, nil
}

// Cached returns the root if it is there already.
func Cached() (root Root, ok bool) {
	root, err := place(base)
	return root, err == nil && root.complete()
}

// CachedFirmware returns the root of firmware if it is there already.
func CachedFirmware() (root Root, ok bool) {
	root, err := place(firmware)
	return root, err == nil && root.complete()
}

// complete tells whether the root is there. It gets its name when it is
// complete, so one file stands for all.
func (r Root) complete() bool {
	_, err := os.Stat(r.Path(packagesFile))
	return err == nil
}

// Packages lists the packages of the root, one a line: name, version,
// architecture and SHA-256 of the file.
func (r Root) Packages() (string, error) {
	data, err := os.ReadFile(r.Path(packagesFile))
	return string(data), err
}

func (r Root) make(ctx context.Context, s set, progress io.Writer) error {
	started := time.Now()
	// What an interrupted run has left goes; the name is new each time, as
	// something of that run might still write.
	const part = ".part-"
	stale, err := filepath.Glob(r.Dir + part + "*")
	if err != nil {
		return err
	}
	for _, dir := range stale {
		_ = os.RemoveAll(dir)
	}
	dir, err := os.MkdirTemp(filepath.Dir(r.Dir), filepath.Base(r.Dir)+part)
	if err != nil {
		return err
	}
	temp := Root{Dir: dir}
	defer os.RemoveAll(temp.Dir)
	if err := os.Chmod(temp.Dir, 0o755); err != nil {
		return err
	}
	fmt.Fprintf(progress, "Unpacking packages of Debian 13 (%s) into %s\n", s.components, r.Dir)
	if err := temp.unpack(ctx, s, progress); err != nil {
		return err
	}
	fmt.Fprintf(progress, "Listing packages and indexing kernel modules (%s)\n", since(started))
	if err := temp.index(ctx); err != nil {
		return err
	}
	if err := os.RemoveAll(r.Dir); err != nil {
		return err
	}
	if err := os.Rename(temp.Dir, r.Dir); err != nil {
		return err
	}
	fmt.Fprintf(progress, "Unpacked in %s\n", since(started))
	return nil
}

func (r Root) unpack(ctx context.Context, s set, progress io.Writer) error {
	sources, err := sourcesOf(s.components)
	if err != nil {
		return err
	}
	args := s.arguments()
	if len(sources) == 0 {
		// mmdebstrap takes its default mirror; backports are beside it.
		args = append(args, "--components="+strings.ReplaceAll(s.components, " ", ","), `--setup-hook=sed -n "s/ `+Suite+` \([a-z -]*\)\$/ `+Suite+`-backports \1/p" "$1/etc/apt/sources.list" > "$1/etc/apt/sources.list.d/backports.list"`)
	}
	for _, option := range aptOptions() {
		args = append(args, "--aptopt="+option)
	}
	args = append(append(args, Suite, r.Dir), sources...)
	watch := newWatch(progress, r.Dir)
	defer watch.stop()
	cmd := exec.CommandContext(ctx, "mmdebstrap", args...)
	cmd.Stdout, cmd.Stderr = watch, watch
	// A process group of its own, so that what mmdebstrap has started ends with it.
	cmd.SysProcAttr = &syscall.SysProcAttr{Setpgid: true}
	cmd.Cancel = func() error { return syscall.Kill(-cmd.Process.Pid, syscall.SIGKILL) }
	cmd.WaitDelay = time.Second
	err = cmd.Run()
	switch {
	case ctx.Err() != nil:
		return context.Cause(ctx)
	case errors.Is(err, exec.ErrNotFound):
		return fmt.Errorf("mmdebstrap is missing; make setup installs it: %w", err)
	case err != nil:
		return fmt.Errorf("mmdebstrap: %w; its last words:\n%s", err, watch.tail())
	}
	return nil
}

// arguments are those of mmdebstrap that decide what the root contains.
//
// The variant extract runs no maintainer scripts, so that nothing of the root
// is run and no rights are needed: mode chrootless suits every user.
func (s set) arguments() []string {
	return []string{
		"--mode=chrootless", "--variant=extract", "--architectures=amd64", "--format=directory",
		"--include=" + strings.Join(s.packages, ","),
		`--aptopt=Apt::Install-Recommends "false"`,
		`--aptopt=Acquire::Retries "3"`,
		`--aptopt=APT::Sandbox::User "root"`, // the user _apt cannot enter a home directory
		`--setup-hook=mkdir -p "$1/etc/apt/preferences.d" && printf "` + pins + `" > "$1/etc/apt/preferences.d/quantavirt"`,
		`--extract-hook=cd "$1/var/cache/apt/archives" && sha256sum *.deb > "$1/` + packagesFile + `.sums"`,
		`--extract-hook=cd "$1/var/cache/apt/archives" && for deb in *.deb; do dpkg-deb --fsys-tarfile "$deb" | tar t | sed -n "s|^\./\(.*[^/]\)\$|${deb%%_*} \1|p"; done > "$1/` + ownersFile + `"`,
	}
}

// key names the root by what goes into it.
func (s set) key() string {
	sum := sha256.Sum256([]byte(strings.Join(s.arguments(), "\x00") + "\x00index 1"))
	return hex.EncodeToString(sum[:6])
}

// lock takes the file lock that keeps two runs from making the same root.
func lock(ctx context.Context, path string, progress io.Writer) (unlock func(), err error) {
	f, err := os.OpenFile(path, os.O_CREATE|os.O_RDWR, 0o644)
	if err != nil {
		return nil, fmt.Errorf("tools: %w", err)
	}
	tick := time.NewTicker(time.Second)
	defer tick.Stop()
	for waited := 0; ; waited++ {
		err := unix.Flock(int(f.Fd()), unix.LOCK_EX|unix.LOCK_NB)
		if err == nil {
			return func() { _ = f.Close() }, nil
		}
		if !errors.Is(err, unix.EWOULDBLOCK) {
			_ = f.Close()
			return nil, fmt.Errorf("tools: lock %s: %w", path, err)
		}
		if waited%5 == 0 {
			fmt.Fprintf(progress, "Waiting for another run that unpacks the same root (%d s)\n", waited)
		}
		select {
		case <-ctx.Done():
			_ = f.Close()
			return nil, context.Cause(ctx)
		case <-tick.C:
		}
	}
}

func since(t time.Time) string { return fmt.Sprintf("%.1f s", time.Since(t).Seconds()) }
