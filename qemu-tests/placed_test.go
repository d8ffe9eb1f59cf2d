package qemutests

import (
	"encoding/json"
	"net/http"
	"slices"
	"strings"
	"testing"
	"time"

	"quantavirt/qemu-tests/lab"
)

// placed runs VMs of the test kernel, whose CPUs and memory are as configured: the
// kernel checks what it sees, and what the node cannot do is refused.
func placed(t *testing.T, n *lab.Node, kernel string) {
	upload(t, n, "testkernel", "kernel", kernel)
	t.Run("capabilities", func(t *testing.T) { placedCapabilities(t, n) })
	t.Run("inside", func(t *testing.T) { placedInside(t, n) })
	t.Run("refused", func(t *testing.T) { placedRefused(t, n) })
	t.Run("live", func(t *testing.T) { placedLive(t, n) })
}

// definePlaced makes a VM of the test kernel with further members of its configuration.
func definePlaced(t *testing.T, n *lab.Node, name, cmdline, members string) {
	t.Helper()
	config := map[string]any{"name": name, "memory": map[string]any{"size": "32M"}, "console": "serial",
		"boot": map[string]any{"firmware": "direct", "kernel": "testkernel", "cmdline": cmdline}}
	if err := json.Unmarshal([]byte(members), &config); err != nil {
		t.Fatal(err)
	}
	if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms", config, nil); err != nil {
		t.Fatal(err)
	}
}

func destroyPlaced(t *testing.T, n *lab.Node, name string) {
	t.Helper()
	if err := n.Call(t.Context(), http.MethodDelete, "/api/v1/vms/"+name+"?force=true&wait=60", nil, nil); err != nil {
		t.Error(err)
	}
}

func placedCapabilities(t *testing.T, n *lab.Node) {
	var c struct {
		MachineTypes []string `json:"machine_types"`
		CPUFlags     []string `json:"cpu_flags"`
		Features     []struct {
			Name      string `json:"name"`
			Available bool   `json:"available"`
		} `json:"features"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/capabilities", nil, &c); err != nil {
		t.Fatal(err)
	}
	available := map[string]bool{}
	for _, f := range c.Features {
		available[f.Name] = f.Available
	}
	if !slices.Contains(c.MachineTypes, "qv-1") || !slices.Contains(c.CPUFlags, "avx2") || !available["cpu:x86-64-v3"] || available["cpu:SapphireRapids"] {
		t.Errorf("%+v", c)
	}
}

func placedInside(t *testing.T, n *lab.Node) {
	for _, c := range []struct{ name, cmdline, members string }{
		{"placed", "cpus=4 cores=2 threads=2 level=3 no-acpi no-ioapic no-timers",
			`{"cpu":{"count":4,"topology":{"sockets":1,"cores":2,"threads":2},"model":"x86-64-v3","features":["-rdrand"],
			"pinning":[[0],[1]],"shares":200,"limit":1.5},"memory":{"size":"32M","hugepages":"2M","numa_node":0}}`},
		{"many", "cpus=256 from=253 online=4 no-acpi no-cpuid no-ioapic no-timers no-interrupts no-pci",
			`{"cpu":{"count":256,"topology":{"sockets":2,"cores":64,"threads":2}}}`},
	} {
		definePlaced(t, n, c.name, c.cmdline, c.members)
		act(t, n, c.name, "start")
		waitState(t, n, c.name, "STOPPED", 30*time.Second)
		a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/vms/"+c.name+"/console?device=serial", nil)
		if out := string(a.Body); err != nil || !strings.HasSuffix(strings.TrimSpace(out), "done") || strings.Contains(out, "FAIL") {
			t.Errorf("%s: %v: %s", c.name, err, out)
		}
		destroyPlaced(t, n, c.name)
	}
	const pages = "/sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"
	if out, err := n.Shell(t.Context(), "cat "+pages); err != nil || strings.TrimSpace(out) != "0" {
		t.Errorf("huge pages are left: %q, %v", out, err)
	}
}

func placedRefused(t *testing.T, n *lab.Node) {
	for _, c := range []struct{ members, code string }{
		{`{"cpu":{"model":"SapphireRapids"}}`, "QV_ERR_CPUID"},
		{`{"cpu":{"features":["+amx_tile"]}}`, "QV_ERR_CPUID"},
		{`{"cpu":{"pinning":[[99]]}}`, "QV_ERR_PIN"},
		{`{"memory":{"size":"32M","numa_node":7}}`, "QV_ERR_NUMA"},
		{`{"memory":{"size":"1G","hugepages":"1G"}}`, "QV_ERR_HUGEPAGE"},
	} {
		definePlaced(t, n, "refused", "", c.members)
		a, err := n.Do(t.Context(), http.MethodPost, "/api/v1/vms/refused/start?wait=60", nil)
		if err != nil || !strings.Contains(string(a.Body), c.code) {
			t.Errorf("%s: %d %s, %v; want %s", c.members, a.Status, a.Body, err, c.code)
		}
		destroyPlaced(t, n, "refused")
	}
}

// placedLive changes what a VM gets of the processors while it measures a timer.
func placedLive(t *testing.T, n *lab.Node) {
	definePlaced(t, n, "busy", "latency=60000", `{}`)
	defer destroyPlaced(t, n, "busy")
	act(t, n, "busy", "start")
	change := map[string]any{"cpu": map[string]any{"shares": 321, "limit": 0.5}}
	if err := n.Call(t.Context(), http.MethodPatch, "/api/v1/vms/busy", change, nil); err != nil {
		t.Fatal(err)
	}
	out, err := n.Shell(t.Context(), "cat /sys/fs/cgroup/vm/busy/cpu.weight /sys/fs/cgroup/vm/busy/cpu.max")
	if err != nil || strings.Join(strings.Fields(out), " ") != "321 50000 100000" {
		t.Errorf("%q, %v", out, err)
	}
}
