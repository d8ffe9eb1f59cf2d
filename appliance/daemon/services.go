package daemon

import (
	"context"
	"io"
	"net"
	"net/http"
	"os"
	"path/filepath"

	"quantavirt/appliance/api"
	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/crypto"
	"quantavirt/appliance/hostpci"
	"quantavirt/appliance/install"
	"quantavirt/appliance/storage"
	"quantavirt/appliance/system"
	"quantavirt/appliance/task"
	"quantavirt/appliance/update"
	"quantavirt/appliance/vm"
	"quantavirt/hv/machine"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// services makes all services, each on those before it.
func (d *daemon) services(boot initapi.Boot) (err error) {
	if d.tasks, err = task.NewManager(d.db, d.bus, d.logger("task")); err != nil {
		return err
	}
	if err := d.openTrust(); err != nil {
		return err
	}
	d.crypto = crypto.New(crypto.Deps{
		Log: d.logger("pqc"), DB: d.db, Tasks: d.tasks, Keystore: filepath.Join(d.o.dataDir, "keystore"), TPM: d.trust.With, Memory: d.o.memory,
	})
	if d.storage, err = storage.Open(d.db, d.o.dataDir, storage.Deps{
		Log: d.logger("storage"), Users: d.usersOf, RAM: d.ramLeft, Kernels: kernels{},
	}); err != nil {
		return err
	}
	d.pci = hostpci.New(d.logger("pci"), d.crypto)
	vmDeps := vm.Deps{
		Log: d.logger("vm"), DB: d.db, Bus: d.bus, Tasks: d.tasks, Schema: api.LazySchema(),
		Storage: d.storage, Network: d.net, PCI: d.pci, VMM: vm.Real{}, KVM: d.kvm, Memory: system.Memory,
		DataDir: d.o.dataDir, RunDir: d.o.runDir, Binary: d.o.hv, Firmware: d.o.firmware, Cgroup: d.o.cgroup, NoJail: os.Geteuid() != 0,
	}
	if d.init != nil {
		vmDeps.Exit = d.init.WaitExit
	}
	if err := vm.AllowHugePages(); err != nil {
		d.logger("vm").Warn("VMs get no huge pages but those that are set aside", "err", err)
	}
	if d.vms, err = vm.Open(vmDeps); err != nil {
		return err
	}
	d.net.NameVMs(d.vms.VMOf)
	end := d.end()
	d.backup = d.backups(end)
	sysDeps := system.Deps{
		Log: d.logger("system"), Boot: boot, DataDir: d.o.dataDir, VMs: d.vms, Cards: d.crypto, Uplink: d.net.Uplink,
		Trust: d.trust.Info, TLS: d.tlsInfo, Configuration: d.config.Info, Name: func() string { return d.config.Document().Hostname },
		Restart: end, CPU: vm.HostCPU,
	}
	if d.init != nil {
		sysDeps.Init = d.init
	}
	if d.sys, err = system.New(d.db, sysDeps); err != nil {
		return err
	}
	updateDeps := update.Deps{
		Log: d.logger("update"), DB: d.db, Tasks: d.tasks, VMs: d.vms, Uplink: d.net.Uplink, Cards: d.crypto.Overview,
		Ready: d.answers, RAM: d.ramLeft, DataDir: d.o.dataDir, Version: version.Version,
		Etc: "/etc/quantavirt", PStore: "/sys/fs/pstore", Reseal: d.resealFor, Starts: d.trust.Starts,
	}
	if d.init != nil {
		updateDeps.Init = d.init
	}
	d.update = update.New(updateDeps)
	d.install = install.New(install.Deps{
		Log: d.logger("install"), Tasks: d.tasks, Disks: d.sys.Disks, Boot: d.sys.Boot, Config: d.config.Bytes,
		Spool: filepath.Join(d.o.dataDir, "updates"), Free: d.storage.Free, Build: d.update.Build(), Keys: d.update.Keys,
		CanEncrypt: d.trust.CanEncrypt, Encrypt: d.trust.Encrypt, Firmware: d.firmware(),
	})
	return nil
}

// answers asks the API on its local socket whether it is ready.
func (d *daemon) answers(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, endTime)
	defer cancel()
	client := &http.Client{Transport: &http.Transport{DisableKeepAlives: true, DialContext: func(ctx context.Context, _, _ string) (net.Conn, error) {
		return new(net.Dialer).DialContext(ctx, "unix", filepath.Join(d.o.runDir, "api.sock"))
	}}}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, "http://node/readyz", nil)
	if err != nil {
		return err
	}
	resp, err := client.Do(req)
	if err != nil {
		return err
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK {
		return qverr.New(qverr.Again, "it answers %s", resp.Status)
	}
	return nil
}

// kernels are those that our VMM boots.
type kernels struct{}

func (kernels) Check(r io.ReaderAt) error                 { return machine.CheckKernel(r) }
func (kernels) UnpackedSize(r io.ReaderAt) (int64, error) { return machine.UnpackedSize(r) }
func (kernels) Unpack(r io.ReaderAt, w io.Writer) error   { return machine.Unpack(r, w) }
func (kernels) CheckUnpacked(r io.ReaderAt, size int64) error {
	return machine.CheckUnpacked(r, size)
}

// usersOf names the VMs that have an image or a disk in their configuration.
func (d *daemon) usersOf(kind storage.Kind, name string) (all, running []string) {
	return d.vms.UsersOf(func(c *spec.VMConfig) bool {
		if kind == storage.KindImage && (c.Boot.Kernel == name || c.Boot.Initrd == name) {
			return true
		}
		path := d.storage.Path(kind, name)
		for _, s := range c.Storage {
			if kind == storage.KindDisk && s.Disk == name || s.Path != "" && filepath.Clean(s.Path) == path {
				return true
			}
		}
		return false
	})
}

// ramLeft bounds files by memory where the data directory is in RAM.
func (d *daemon) ramLeft() int64 {
	if d.sys.Boot().Data.Persistent {
		return 1<<63 - 1
	}
	return d.vms.Admissible()
}

// kvm is nil when guests can run. It waits for PID 1 to know.
func (d *daemon) kvm(ctx context.Context) error {
	ctx, cancel := context.WithTimeout(ctx, kvmTime)
	defer cancel()
	select {
	case <-d.booted:
	case <-ctx.Done():
		return qverr.New(qverr.Again, "PID 1 is still looking for KVM: %w", ctx.Err())
	}
	k := d.sys.Boot().KVM
	switch {
	case k.Available:
		return nil
	case k.Problem != nil:
		return qverr.New(qverr.Code(k.Problem.Code), "%s", k.Problem.Message)
	}
	return qverr.New(qverr.NoVMX, "the node has no working KVM")
}
