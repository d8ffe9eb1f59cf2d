package main

import (
	"os"
	"path/filepath"
	"slices"
	"testing"
)

// VM processes are found in every group below the VMs' one; PID 1 never is.
func TestProcesses(t *testing.T) {
	dir := t.TempDir()
	for name, pids := range map[string]string{"cgroup.procs": "", "web/cgroup.procs": "101\n102\n", "db/cgroup.procs": "103\n", "db/inner/cgroup.procs": "1\n0\n104\n", "db/other": "999\n"} {
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(pids), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	got := processes(dir)
	slices.Sort(got)
	if !slices.Equal(got, []int{101, 102, 103, 104}) {
		t.Errorf("%v", got)
	}
	if got := processes(filepath.Join(dir, "nothing")); got != nil {
		t.Errorf("of nothing: %v", got)
	}
}
