package mount

import (
	"errors"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

func TestControlGroups(t *testing.T) {
	for _, c := range []struct {
		have, enabled string
		code          qverr.Code
	}{
		{"cpuset cpu io memory hugetlb pids rdma misc\n", "+cpu +cpuset +io +memory +pids +hugetlb", 0},
		{"cpu pids\n", "+cpu +pids", qverr.Unsupported},
	} {
		dir := t.TempDir()
		if err := os.WriteFile(filepath.Join(dir, "cgroup.controllers"), []byte(c.have), 0o644); err != nil {
			t.Fatal(err)
		}
		if err := MakeGroups(dir); err != nil {
			t.Error(err)
		}
		if err := Join(dir); err != nil {
			t.Error(err)
		}
		if err := Controllers(dir); qverr.CodeOf(err) != c.code {
			t.Errorf("%v", err)
		}
		for file, want := range map[string]string{
			"cgroup.subtree_control": c.enabled, "vm/cgroup.subtree_control": c.enabled,
			"init/cgroup.procs": "0", "appliance/cpu.weight": "300",
		} {
			if got, err := os.ReadFile(filepath.Join(dir, file)); err != nil || string(got) != want {
				t.Errorf("%s: %q %v", file, got, err)
			}
		}
		_, err := os.Stat(filepath.Join(dir, "appliance/memory.min"))
		if has := err == nil; has != strings.Contains(c.have, "memory") {
			t.Errorf("memory.min with controllers %q: %v", c.have, err)
		}
	}
	if err := Controllers(t.TempDir()); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("without cgroup2: %v", err)
	}
}

func TestLinks(t *testing.T) {
	root := t.TempDir()
	for range 2 {
		if err := Links(root); err != nil {
			t.Fatal(err)
		}
	}
	if got, err := os.Readlink(filepath.Join(root, "var/run")); err != nil || got != "/run" {
		t.Errorf("%q %v", got, err)
	}
}
