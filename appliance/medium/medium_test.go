package medium

import (
	"os"
	"path/filepath"
	"runtime"
	"testing"

	"golang.org/x/sys/unix"
)

// What a killed process left mounted goes, and nothing else.
func TestRelease(t *testing.T) {
	if os.Geteuid() != 0 {
		t.Skip("needs root, for mounts in a namespace of its own")
	}
	runtime.LockOSThread() // and never unlocked: the thread ends with its namespace
	if err := unix.Unshare(unix.CLONE_NEWNS | unix.CLONE_FS); err != nil {
		t.Fatal(err)
	}
	if err := unix.Mount("", "/", "", unix.MS_REC|unix.MS_PRIVATE, ""); err != nil {
		t.Fatal(err)
	}
	dir := t.TempDir()
	for _, name := range []string{prefix + "mounted", prefix + "empty", "other"} {
		if err := os.Mkdir(filepath.Join(dir, name), 0o755); err != nil {
			t.Fatal(err)
		}
	}
	for _, name := range []string{prefix + "mounted", "other"} {
		if err := unix.Mount("test", filepath.Join(dir, name), "tmpfs", unix.MS_RDONLY, ""); err != nil {
			t.Fatal(err)
		}
	}
	release(dir)
	left, err := filepath.Glob(filepath.Join(dir, "*"))
	if err != nil || len(left) != 1 || filepath.Base(left[0]) != "other" {
		t.Errorf("%v are left, %v", left, err)
	}
	if err := unix.Unmount(filepath.Join(dir, "other"), 0); err != nil {
		t.Errorf("what is not ours was unmounted: %v", err)
	}
}
