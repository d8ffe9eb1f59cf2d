package rescue

import (
	"context"
	"errors"
	"os"
	"path/filepath"
	"strings"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/auth"
	"quantavirt/appliance/system"
	"quantavirt/internal/qverr"
)

// served are the operations that do not need the daemon.
var served = map[string]bool{
	"GET /healthz": true, "GET /readyz": true,
	"GET /api/v1/system/info": true, "GET /api/v1/system/disks": true, "GET /api/v1/system/errors": true, "GET /api/v1/logs": true,
	"GET /api/v1/system/support-bundle": true,
	"POST /api/v1/system/update":        true, "POST /api/v1/system/rollback": true, "GET /api/v1/system/slots": true,
	"GET /api/v1/tasks": true, "GET /api/v1/tasks/{id}": true, "DELETE /api/v1/tasks/{id}": true,
	"POST /api/v1/system/reboot": true, "POST /api/v1/system/poweroff": true, "POST /api/v1/system/restart-daemon": true,
}

// gate refuses what needs the daemon, and notes that somebody is here.
func (r *rescue) gate(operation string) error {
	if operation != "GET /healthz" && operation != "GET /readyz" { // probes come from machines
		select {
		case r.used <- struct{}{}:
		default:
		}
	}
	if !served[operation] {
		return errRescue()
	}
	return nil
}

func errRescue() error {
	return qverr.New(qverr.Again, "the node is in rescue mode: its daemon cannot start").
		WithHint("see why: quantavirt system info; try again: quantavirt system restart-daemon")
}

// node is what the API shows and commands.
type node struct{ *rescue }

// Ready is why the node cannot serve.
func (node) Ready() error { return errRescue() }

// Info describes the node by what PID 1 and the kernel say.
func (n node) Info(ctx context.Context) (spec.SystemInfo, error) {
	ctx, cancel := context.WithTimeout(ctx, n.o.patience)
	defer cancel()
	boot, err := n.init.Boot(ctx, false)
	if err != nil {
		n.log.Error("what PID 1 found", "err", err)
		boot = n.boot
	}
	info := system.RescueInfo(boot, n.o.dataDir, n.started)
	info.NodeID = n.saved.Node
	info.Network = n.net.info()
	info.Vms = spec.VMCounts{Total: max(n.saved.VMs, n.running()), Running: n.running()}
	info.TLS = spec.TLSInfo{Policy: n.policy, CaFingerprint: n.ca.Fingerprint()}
	for _, c := range auth.Curves(n.policy) {
		info.TLS.KeyExchanges = append(info.TLS.KeyExchanges, c.String())
	}
	return info, nil
}

// Capabilities needs the daemon.
func (node) Capabilities(context.Context) (spec.Capabilities, error) {
	return spec.Capabilities{}, errRescue()
}

// Disks lists the disks of the machine.
func (n node) Disks() ([]spec.SystemDisk, error) { return system.Disks(n.boot, n.o.dataDir) }

// Reboot asks PID 1.
func (n node) Reboot(ctx context.Context) error { return n.init.Reboot(ctx) }

// PowerOff asks PID 1.
func (n node) PowerOff(ctx context.Context) error { return n.init.PowerOff(ctx) }

// RestartDaemon makes way for the daemon.
func (n node) RestartDaemon() error {
	n.once.Do(func() { close(n.again) })
	return nil
}

// running counts the VM processes, by their control groups.
func (r *rescue) running() int {
	groups, err := os.ReadDir(r.o.cgroup)
	if err != nil {
		return 0
	}
	count := 0
	for _, g := range groups {
		events, err := os.ReadFile(filepath.Join(r.o.cgroup, g.Name(), "cgroup.events"))
		if err == nil && strings.Contains(string(events), "populated 1") {
			count++
		}
	}
	return count
}

// ram bounds a bundle by memory where it is received into that: half of what is
// available, as VMs may run.
func (r *rescue) ram() int64 {
	if r.boot.Data.Persistent && r.spool() == r.o.dataDir {
		return 1<<63 - 1
	}
	_, available := system.Memory()
	return available / 2
}

// spool is where a bundle is received: on the data volume if it can be written.
func (r *rescue) spool() string {
	r.spoolOnce.Do(func() {
		r.spoolDir = r.o.scratch()
		ok := make(chan bool, 1)
		go func() { ok <- writable(r.o.dataDir) }()
		late := time.NewTimer(r.o.patience)
		defer late.Stop()
		select {
		case yes := <-ok:
			if yes {
				r.spoolDir = r.o.dataDir
			}
		case <-late.C:
		}
	})
	return r.spoolDir
}

func writable(dir string) bool {
	f, err := os.CreateTemp(dir, ".rescue-*")
	if err != nil {
		return false
	}
	_, err = f.Write(make([]byte, 4096))
	return errors.Join(err, f.Sync(), f.Close(), os.Remove(f.Name())) == nil
}

// noVMs is what the update service gets to see: without the daemon VMs can be
// neither listed nor started.
type noVMs struct{}

func (noVMs) List() []spec.VM { return nil }

func (noVMs) Start(context.Context, string, string) (spec.Task, error) {
	return spec.Task{}, qverr.New(qverr.State, "no VM is started in rescue mode")
}

// lazy is what is found out at its first use.
type lazy struct {
	once      sync.Once
	spoolOnce sync.Once
	spoolDir  string
}
