package daemon

import (
	"sync"

	"quantavirt/appliance/backup"
	"quantavirt/internal/version"
)

// finishRestore puts a restored state in place, before any of it is opened.
func (d *daemon) finishRestore() error {
	restored, err := backup.Finish(d.o.dataDir)
	if restored {
		d.log.Warn("the state of a backup is in place; what it replaced is kept in state-before on the data volume")
	}
	return err
}

// end returns what ends the daemon, to be started again.
func (d *daemon) end() func() { return sync.OnceFunc(func() { close(d.again) }) }

func (d *daemon) backups(end func()) *backup.Service {
	return backup.New(backup.Deps{
		Log: d.logger("backup"), DB: d.db, DataDir: d.o.dataDir, Version: version.Version,
		VMs: d.vms.List, Images: d.storage.Images, Disks: d.storage.Disks,
		Node:    func() (string, string) { return d.sys.ID(), d.sys.Hostname() },
		Restart: end,
	})
}
