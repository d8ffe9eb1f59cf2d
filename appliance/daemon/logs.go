package daemon

import (
	"path/filepath"

	"quantavirt/appliance/logs"
)

// logs is where the node's log is.
func (d *daemon) logs() logs.Source {
	s := logs.Source{Path: d.logPath()}
	if d.init != nil {
		s.Boot = d.init.Log
	}
	return s
}

func (d *daemon) logPath() string { return filepath.Join(d.o.dataDir, "logs", "quantavirt.log") }
