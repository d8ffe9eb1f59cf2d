package rootfs

import (
	"errors"
	"io/fs"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

func write(t *testing.T, path, text string) {
	t.Helper()
	if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
		t.Fatal(err)
	}
	if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
		t.Fatal(err)
	}
}

func TestCheck(t *testing.T) {
	const good = `{"id":"abc","version":"0.1","build":"virtual","kernel":"6.12"}`
	for _, c := range []struct {
		name, meta, sentinel, release string
		code                          qverr.Code
	}{
		{"complete", good, "abc\n", "6.12", 0},
		{"cut before the end", good, "", "6.12", qverr.IO},
		{"another image's end", good, "abd", "6.12", qverr.IO},
		{"cut early", "", "", "6.12", qverr.IO},
		{"damaged", good[:20], "abc", "6.12", qverr.IO},
		{"no id", `{"kernel":"6.12"}`, "\n", "6.12", qverr.IO},
		{"another kernel", good, "abc", "6.13", qverr.Version},
	} {
		t.Run(c.name, func(t *testing.T) {
			root := t.TempDir()
			if c.meta != "" {
				write(t, filepath.Join(root, "etc/quantavirt/image.json"), c.meta)
			}
			if c.sentinel != "" {
				write(t, filepath.Join(root, ".image-complete"), c.sentinel)
			}
			image, err := Check(root, c.release)
			if qverr.CodeOf(err) != c.code || c.code == 0 && image.Version != "0.1" {
				t.Errorf("%+v %v", image, err)
			}
		})
	}
}

func TestMove(t *testing.T) {
	from, to := t.TempDir(), ""
	to = filepath.Join(from, "new")
	write(t, filepath.Join(from, "bin/tool"), strings.Repeat("x", 100000))
	write(t, filepath.Join(from, "etc/empty/file"), "")
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	must(os.Mkdir(to, 0o755))
	must(os.Chmod(filepath.Join(from, "bin/tool"), 0o4711))
	must(unix.Chmod(filepath.Join(from, "bin/tool"), 0o4711))
	must(unix.Mkfifo(filepath.Join(from, "fifo"), 0o600))
	must(os.Symlink("bin/tool", filepath.Join(from, "link")))
	must(os.Mkdir(filepath.Join(from, "tmp"), 0))
	must(unix.Chmod(filepath.Join(from, "tmp"), 0o1777))
	must(Move(from, to))
	left, err := os.ReadDir(from)
	must(err)
	if len(left) != 1 || left[0].Name() != "new" {
		t.Errorf("left behind: %v", left)
	}
	for name, mode := range map[string]uint32{"bin/tool": unix.S_IFREG | 0o4711, "tmp": unix.S_IFDIR | 0o1777, "fifo": unix.S_IFIFO | 0o600, "link": unix.S_IFLNK | 0o777, "etc/empty/file": unix.S_IFREG | 0o644} {
		var st unix.Stat_t
		if err := unix.Lstat(filepath.Join(to, name), &st); err != nil || st.Mode != mode {
			t.Errorf("%s: mode %o, want %o (%v)", name, st.Mode, mode, err)
		}
	}
	if data, err := os.ReadFile(filepath.Join(to, "link")); err != nil || len(data) != 100000 {
		t.Errorf("%d bytes: %v", len(data), err)
	}
}

// The trick itself, in a mount namespace whose root is treated as rootfs is: the
// new root must be one that pivot_root accepts.
func TestEnterThenPivot(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root for a mount namespace")
	}
	if os.Getenv("ROOTFS_CHILD") == "" {
		cmd := exec.Command(os.Args[0], "-test.run=^TestEnterThenPivot$", "-test.v")
		cmd.Env = append(os.Environ(), "ROOTFS_CHILD=1", "ROOTFS_DIR="+t.TempDir())
		cmd.SysProcAttr = &syscall.SysProcAttr{Cloneflags: unix.CLONE_NEWNS}
		out, err := cmd.CombinedOutput()
		if err != nil || !strings.Contains(string(out), "--- PASS") {
			t.Fatalf("%v\n%s", err, out)
		}
		return
	}
	must := func(err error) {
		t.Helper()
		if err != nil {
			t.Fatal(err)
		}
	}
	dir := os.Getenv("ROOTFS_DIR")
	must(unix.Mount("", "/", "", unix.MS_PRIVATE|unix.MS_REC, ""))
	must(unix.Mount("rootfs", dir, "tmpfs", 0, ""))
	write(t, filepath.Join(dir, "file"), "there")
	must(unix.Chroot(dir))
	must(os.Chdir("/"))
	moved, err := Leave()
	must(err)
	if moved {
		t.Error("a tmpfs was copied")
	}
	if data, err := os.ReadFile("/file"); err != nil || string(data) != "there" {
		t.Errorf("%q %v", data, err)
	}
	if _, err := os.Stat(staging); !errors.Is(err, fs.ErrNotExist) {
		t.Errorf("staging: %v", err)
	}
	must(os.Mkdir("/jail", 0o755))
	must(unix.Mount("jail", "/jail", "tmpfs", 0, ""))
	must(os.Chdir("/jail"))
	must(unix.PivotRoot(".", "."))
	must(unix.Unmount(".", unix.MNT_DETACH))
	must(os.Chdir("/"))
	if entries, err := os.ReadDir("/"); err != nil || len(entries) != 0 {
		t.Errorf("the jail holds %v %v", entries, err)
	}
}
