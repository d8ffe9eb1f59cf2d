package volume

import (
	"context"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/disks"
	"quantavirt/internal/disks/disktest"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
)

func TestCheck(t *testing.T) {
	clean, dirty := disktest.Ext4(Label), disktest.Ext4(Label)
	dirty[disks.SuperOffset+0x3A] = 3 // errors
	for _, c := range []struct {
		name   string
		disk   []byte
		status int
		err    error
		ran    bool
		code   qverr.Code
		says   string
	}{
		{"clean", clean, 8, nil, false, 0, ""},
		{"nothing to repair", dirty, 0, nil, true, 0, ""},
		{"repaired", dirty, 1, nil, true, 0, ""},
		{"repaired, reboot", dirty, 3, nil, true, 0, ""},
		{"not repaired", dirty, 4, nil, true, qverr.StrIO, "UNEXPECTED INCONSISTENCY"},
		{"partly repaired", dirty, 5, nil, true, qverr.StrIO, "does not repair"},
		{"could not run", dirty, 8, nil, true, qverr.StrIO, "e2fsck failed"},
		{"killed", dirty, -1, nil, true, qverr.StrIO, "e2fsck failed"},
		{"is not there", dirty, 0, os.ErrNotExist, true, qverr.NoEnt, ""},
	} {
		b := Block{Device: filepath.Join(t.TempDir(), "disk")}
		if err := os.WriteFile(b.Device, c.disk, 0o600); err != nil {
			t.Fatal(err)
		}
		if err := b.read(); err != nil {
			t.Fatal(err)
		}
		ran := false
		_, err := b.Check(t.Context(), time.Now(), func(_ context.Context, argv ...string) (int, string, error) {
			ran = true
			if got := strings.Join(argv, " "); got != "/sbin/e2fsck -p "+b.Device {
				t.Errorf("%s: runs %q", c.name, got)
			}
			return c.status, "a\nUNEXPECTED INCONSISTENCY; RUN fsck MANUALLY.\n", c.err
		})
		if ran != c.ran || qverr.CodeOf(err) != c.code || err != nil && !strings.Contains(err.Error(), c.says) {
			t.Errorf("%s: ran %v, %v", c.name, ran, err)
		}
	}
}

// A real file system with an error is repaired by the real program, and then
// looks so.
func TestCheckRepairs(t *testing.T) {
	var tool [3]string
	for i, name := range []string{"mkfs.ext4", "debugfs", "e2fsck"} {
		tool[i] = hosttool.Path(t, name)
	}
	b := Block{Device: filepath.Join(t.TempDir(), "disk")}
	if err := os.WriteFile(b.Device, make([]byte, 4<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	for _, argv := range [][]string{{tool[0], "-q", "-F", b.Device}, {tool[1], "-w", "-R", "ssv state 2", b.Device}} {
		if out, err := exec.Command(argv[0], argv[1:]...).CombinedOutput(); err != nil {
			t.Fatalf("%v: %s", err, out)
		}
	}
	if err := b.read(); err != nil || !b.FS.Errors {
		t.Fatalf("%+v %v", b.FS, err)
	}
	why, err := b.Check(t.Context(), time.Now(), func(ctx context.Context, argv ...string) (int, string, error) {
		cmd := exec.CommandContext(ctx, tool[2], argv[1:]...)
		out, _ := cmd.CombinedOutput()
		return cmd.ProcessState.ExitCode(), string(out), nil
	})
	if err != nil || why == "" || b.FS == nil || b.FS.Errors || !b.FS.Clean {
		t.Errorf("%q %v: %+v", why, err, b.FS)
	}
}
