package cli

import (
	"net/http"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

const crashJSON = `{"time":"2026-01-15T14:40:00Z","reason":"triple-fault","code":-43,"message":"vCPU 1: triple fault","vcpu":1,"registers_reset":true,
"vcpus":[{"id":0,"registers":{"rip":"0x100000","rax":"0x5"},"last_exits":[{"reason":"interrupted"}]},
{"id":1,"registers":{"rip":"0xfff0"},"last_exits":[{"reason":"io","access":"write","address":"0x3f8","size":1,"data":"0x61"},{"reason":"mmio","access":"read","address":"0xd0000000","size":4},{"reason":"shutdown"}]}],
"devices":[{"id":"disk0","kind":"virtio-blk","ready":false,"broken":"driver broke the virtqueue"}],"console":{"serial":"panic\n"},"log":"last line\n"}`

func TestCrash(t *testing.T) {
	crashed := strings.Replace(vmJSON, `"state":"RUNNING"`, `"state":"CRASHED","crashed_at":"2026-01-15T14:40:00Z"`, 1)
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		switch r.URL.Path {
		case "/api/v1/vms/web":
			answerJSON(w, 200, crashed)
		case "/api/v1/vms/web/crash":
			answerJSON(w, 200, crashJSON)
		default:
			fail(w, qverr.New(qverr.NoEnt, "VM %s has not crashed", r.URL.Path))
		}
	}))
	short := []string{"2026-01-15 14:40:00", "vCPU 1: triple fault", "1, rip 0xfff0 (reset by KVM)", "last exit", "shutdown", "disk0", "broken: driver broke the virtqueue"}
	long := append([]string{"rax=0x5 rip=0x100000", "exit: io: write of 1 bytes to 0x3f8: 0x61", "exit: mmio: read of 4 bytes from 0xd0000000",
		"End of serial:\npanic", "End of the VM process's log:\nlast line"}, short...)
	for verb, want := range map[string][]string{"show": short, "crash": long} {
		got := runIn(t, env, nil, "vm", verb, "web")
		for _, text := range want {
			if got.exit != 0 || !strings.Contains(got.out, text) {
				t.Errorf("vm %s lacks %q:\n%s%s", verb, text, got.out, got.err)
			}
		}
	}
	if got := runIn(t, env, nil, "vm", "crash", "db"); got.exit == 0 || !strings.Contains(got.err, "QV_ERR_NOENT") {
		t.Errorf("%+v", got)
	}
}

func TestStats(t *testing.T) {
	env := node(t, http.HandlerFunc(func(w http.ResponseWriter, _ *http.Request) {
		answerJSON(w, 200, `{"state":"RUNNING","time":"2026-01-15T14:40:00Z","uptime_seconds":5,"cpu":{"usage_us":1,"user_us":1,"system_us":0,"steal_us":[2500]},
"memory":{"current_bytes":1,"limit_bytes":2,"guest_bytes":3,"beyond_bytes":5242880},
"vmm":{"vcpus":[{"id":0,"cpu_us":7000,"exits_by_reason":{"mmio":3,"io":9}}],"disks":[{"id":"disk0","reads":4,"read_bytes":4096}],"nics":[{"id":"nic0","offloaded":true}],
"consoles":[{"id":"serial","bytes":2048,"dropped_bytes":77}],"devices":[{"id":"rng","ready":true},{"id":"disk0","broken":"bad index"}]}}`)
	}))
	got := runIn(t, env, nil, "vm", "stats", "web")
	for _, text := range []string{"beyond guest RAM", "5 MiB", "vCPU 0", "7ms", "steal 2.5ms", "exits: io 9, mmio 3", "4 reads of 4 KiB", "in the kernel (vhost)", "2 KiB", "77 bytes dropped", "broken: bad index"} {
		if got.exit != 0 || !strings.Contains(got.out, text) {
			t.Errorf("no %q:\n%s%s", text, got.out, got.err)
		}
	}
}
