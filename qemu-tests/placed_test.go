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

// placed defines VMs of the test kernel, whose CPUs and memory are as configured: what
// the kernel sees is checked there, what the node cannot do is refused.
func placed(t *testing.T, n *lab.Node, kernel string) {
	upload(t, n, "testkernel", "kernel", kernel)
	define := func(name, members string) {
		t.Helper()
		var config map[string]any
		if err := json.Unmarshal([]byte(`{"memory":{"size":"32M"},"console":"serial","boot":{"firmware":"direct","kernel":"testkernel"}}`), &config); err != nil {
			t.Fatal(err)
		}
		if err := json.Unmarshal([]byte(members), &config); err != nil {
			t.Fatal(err)
		}
		config["name"] = name
		if err := n.Call(t.Context(), http.MethodPost, "/api/v1/vms", config, nil); err != nil {
			t.Fatal(err)
		}
	}
	var caps struct {
		MachineTypes []string `json:"machine_types"`
		CPUFlags     []string `json:"cpu_flags"`
		Features     []struct {
			Name      string `json:"name"`
			Available bool   `json:"available"`
		} `json:"features"`
	}
	if err := n.Call(t.Context(), http.MethodGet, "/api/v1/system/capabilities", nil, &caps); err != nil {
		t.Fatal(err)
	}
	models := map[string]bool{}
	for _, f := range caps.Features {
		models[f.Name] = f.Available
	}
	if !slices.Contains(caps.MachineTypes, "qv-1") || !slices.Contains(caps.CPUFlags, "avx2") || !models["cpu:x86-64-v3"] || models["cpu:SapphireRapids"] {
		t.Errorf("capabilities: %+v", caps)
	}

	define("placed", `{"cpu":{"count":4,"topology":{"sockets":1,"cores":2,"threads":2},"model":"x86-64-v3","features":["-rdrand"],"pinning":[[0],[1]],"shares":200,"limit":1.5},
		"memory":{"size":"32M","hugepages":"2M","numa_node":0},
		"boot":{"firmware":"direct","kernel":"testkernel","cmdline":"cpus=4 cores=2 threads=2 level=3 no-acpi no-ioapic no-timers"}}`)
	act(t, n, "placed", "start")
	waitState(t, n, "placed", "STOPPED", 30*time.Second)
	a, err := n.Do(t.Context(), http.MethodGet, "/api/v1/vms/placed/console?device=serial", nil)
	if out := string(a.Body); err != nil || !strings.HasSuffix(strings.TrimSpace(out), "done") || strings.Contains(out, "FAIL") {
		t.Errorf("%v: %s", err, out)
	}

	for name, c := range map[string]struct{ members, code string }{
		"model":     {`{"cpu":{"model":"SapphireRapids"}}`, "QV_ERR_CPUID"},
		"flag":      {`{"cpu":{"features":["+amx_tile"]}}`, "QV_ERR_CPUID"},
		"pin":       {`{"cpu":{"pinning":[[99]]}}`, "QV_ERR_PIN"},
		"node":      {`{"memory":{"size":"32M","numa_node":7}}`, "QV_ERR_NUMA"},
		"gigapages": {`{"memory":{"size":"1G","hugepages":"1G"}}`, "QV_ERR_HUGEPAGE"},
	} {
		define(name, c.members)
		a, err := n.Do(t.Context(), http.MethodPost, "/api/v1/vms/"+name+"/start?wait=60", nil)
		if err != nil || !strings.Contains(string(a.Body), c.code) {
			t.Errorf("%s: %d %s, %v; want %s", name, a.Status, a.Body, err, c.code)
		}
	}

	// What a VM gets of the processors changes while it runs: this one measures a timer
	// for a minute.
	define("busy", `{"cpu":{"count":1},"boot":{"firmware":"direct","kernel":"testkernel","cmdline":"latency=60000"}}`)
	act(t, n, "busy", "start")
	if err := n.Call(t.Context(), http.MethodPatch, "/api/v1/vms/busy", map[string]any{"cpu": map[string]any{"shares": 321, "limit": 0.5}}, nil); err != nil {
		t.Fatal(err)
	}
	out, err := n.Shell(t.Context(), "cat /sys/fs/cgroup/vm/busy/cpu.weight /sys/fs/cgroup/vm/busy/cpu.max")
	if err != nil || strings.Join(strings.Fields(out), " ") != "321 50000 100000" {
		t.Errorf("%q, %v", out, err)
	}
	for _, name := range []string{"placed", "model", "flag", "pin", "node", "gigapages", "busy"} {
		if err := n.Call(t.Context(), http.MethodDelete, "/api/v1/vms/"+name+"?force=true&wait=60", nil, nil); err != nil {
			t.Error(err)
		}
	}
	if out, err := n.Shell(t.Context(), "cat /sys/kernel/mm/hugepages/hugepages-2048kB/nr_hugepages"); err != nil || strings.TrimSpace(out) != "0" {
		t.Errorf("huge pages are left: %q, %v", out, err)
	}
}
