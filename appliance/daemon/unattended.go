package daemon

import (
	"context"
	"fmt"
	"os"
	"path/filepath"
	"slices"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/install"
	"quantavirt/internal/disks"
	"quantavirt/internal/efivar"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
)

// installConfigured installs the node as its configuration says, and says
// whether the node goes down for it. A disk that is installed already, or a node
// that runs from one, is left alone: a machine that boots from the network first
// would else install itself for ever.
func (d *daemon) installConfigured() (down bool) {
	doc := d.config.Document()
	if d.init == nil || doc.Install == nil && doc.Data == nil {
		return false
	}
	all, err := d.sys.Disks()
	if err != nil {
		d.config.Report(err)
		return false
	}
	switch {
	case doc.Install != nil && !installed(all):
		i := doc.Install
		r := install.Request{Disk: i.Disk, WipeSerial: i.WipeSerial, Encrypt: i.Encrypt}
		err = d.installNow(r, install.Source{URL: i.Source, SHA256: i.SHA256})
		return d.then(place("install", err), i.Then)
	case doc.Install == nil && !slices.ContainsFunc(all, holdsData):
		r := install.Request{Disk: doc.Data.Disk, WipeSerial: doc.Data.WipeSerial, DataOnly: true, Encrypt: doc.Data.Encrypt}
		err = d.installNow(r, install.Source{})
		return d.then(place("data", err), nodeconfig.ThenReboot)
	}
	return false
}

// installed tells whether the machine has a disk of ours with a system and a
// data volume: an installed one, unlike a medium.
func installed(all []disks.Disk) bool {
	return slices.ContainsFunc(all, func(d disks.Disk) bool {
		named := func(name string) bool {
			return slices.ContainsFunc(d.Partitions, func(p disks.DiskPartition) bool { return p.Name == name })
		}
		return named(disks.LabelESP) && named(disks.LabelData)
	})
}

func holdsData(d disks.Disk) bool {
	is := func(fs *disks.FileSystem) bool { return fs != nil && fs.Label == disks.LabelData }
	return is(d.FileSystem) || slices.ContainsFunc(d.Partitions, func(p disks.DiskPartition) bool { return is(p.FileSystem) })
}

// installNow is an installation and its end.
func (d *daemon) installNow(r install.Request, src install.Source) error {
	t, err := d.install.Start(r, src, "")
	if err != nil {
		return err
	}
	d.say("quantavirt: installing on " + t.Target)
	if t, err = d.tasks.Wait(d.ctx, t.ID); err != nil {
		return err
	}
	if t.State != spec.TaskStateSucceeded {
		return t.Error.Err()
	}
	for _, w := range t.Warnings {
		d.say(fmt.Sprintf("quantavirt: %s (%d): %s", w.Name, w.Code, w.Message))
	}
	if r.Encrypt {
		d.say("quantavirt: the encrypted data volume has no recovery key yet; have one made when the node is up: quantavirt system recovery-key")
	}
	return nil
}

// place gives an error its place in the configuration.
func place(path string, err error) error {
	if err == nil {
		return nil
	}
	return qverr.New(qverr.CodeOf(err), "%s: %w", path, err).With("path", path).WithHint("%s", qverr.HintOf(err))
}

// then reboots or powers off after an installation, or reports why there was
// none.
func (d *daemon) then(err error, what string) (down bool) {
	if err != nil {
		d.config.Report(err)
		d.showBanner("")
		return false
	}
	d.say("quantavirt: installed; then: " + what)
	ctx, cancel := context.WithTimeout(d.ctx, endTime)
	defer cancel()
	switch what {
	case nodeconfig.ThenReboot:
		err = d.sys.Reboot(ctx)
	case nodeconfig.ThenPowerOff:
		err = d.sys.PowerOff(ctx)
	default:
		d.showBanner("")
		return false
	}
	if err != nil {
		d.log.Error("after the installation", "err", err)
	}
	return err == nil
}

// say shows a line on the consoles above the banner.
func (d *daemon) say(line string) {
	d.log.Info(line)
	ctx, cancel := context.WithTimeout(d.ctx, endTime)
	defer cancel()
	if err := d.console.show(ctx, []string{line}); err != nil {
		d.log.Error("show a line", "err", err)
	}
}

// firmware are the variables of the machine's UEFI, nil if the node was not booted
// by one.
func (d *daemon) firmware() efivar.Variables {
	if _, err := os.Stat(filepath.Dir(efivar.Dir)); err != nil || d.init == nil {
		return nil
	}
	return efivar.Files{Dir: efivar.Dir, Vendor: efivar.Global}
}
