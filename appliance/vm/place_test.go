package vm

import (
	"os"
	"path/filepath"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func TestCheckNode(t *testing.T) {
	nodes := t.TempDir()
	if err := os.Mkdir(filepath.Join(nodes, "node1"), 0o755); err != nil {
		t.Fatal(err)
	}
	info := "Node 1 MemTotal:  999999 kB\nNode 1 MemFree:  65536 kB\nNode 1 Active(file): 32768 kB\nNode 1 Inactive(file): 32768 kB\n"
	if err := os.WriteFile(filepath.Join(nodes, "node1", "meminfo"), []byte(info), 0o644); err != nil {
		t.Fatal(err)
	}
	c := spec.VMConfig{Name: "web"}
	for _, tc := range []struct {
		node *int
		size spec.Size
		good bool
	}{{nil, 1 << 40, true}, {new(1), 128 << 20, true}, {new(1), 129 << 20, false}, {new(0), 16 << 20, false}} {
		c.Memory.NumaNode, c.Memory.Size = tc.node, tc.size
		if err := checkNode(nodes, &c); tc.good && err != nil {
			t.Error(err)
		} else if !tc.good {
			wantCode(t, err, qverr.NUMA)
		}
	}
}

// TestShares: what the process of a running VM gets of the processors changes at once.
func TestShares(t *testing.T) {
	r := newRig(t)
	r.Cgroup = t.TempDir()
	r.create(with(`,"cpu":{"shares":200}`))
	r.start("web")
	if w := r.vmm.specs[0].CPUWeight; w != 200 {
		t.Fatalf("weight %d", w)
	}
	dir := filepath.Join(r.Cgroup, "web")
	if err := os.MkdirAll(dir, 0o755); err != nil {
		t.Fatal(err)
	}
	for _, c := range []struct{ patch, weight, most string }{
		{`{"cpu":{"shares":300,"limit":1.5}}`, "300", "150000 100000"},
		{`{"cpu":{"limit":null}}`, "300", "max 100000"},
		{`{"cpu":{"shares":null}}`, "100", "max 100000"},
	} {
		if _, err := r.Update(t.Context(), "web", tree(t, c.patch).(map[string]any)); err != nil {
			t.Fatal(err)
		}
		weight, _ := os.ReadFile(filepath.Join(dir, "cpu.weight"))
		most, _ := os.ReadFile(filepath.Join(dir, "cpu.max"))
		if string(weight) != c.weight || string(most) != c.most {
			t.Errorf("%s: cpu.weight %s, cpu.max %s", c.patch, weight, most)
		}
	}
	_, err := r.Update(t.Context(), "web", tree(t, `{"cpu":{"count":2}}`).(map[string]any))
	wantCode(t, err, qverr.State)
}

// TestMachineKept: a VM has a machine type and a generation id from its creation on.
func TestMachineKept(t *testing.T) {
	r := newRig(t)
	r.create(with(``))
	v, err := r.Get("web")
	if err != nil || v.Config.Machine != "qv-1" {
		t.Fatalf("%q, %v", v.Config.Machine, err)
	}
	r.start("web")
	first := r.vmm.specs[0].Machine
	if first.Type != "qv-1" || len(first.Generation) != 36 || first.Validate() != nil {
		t.Errorf("type %q, generation %q: %v", first.Type, first.Generation, first.Validate())
	}
}
