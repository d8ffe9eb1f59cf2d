package daemon

import (
	"path/filepath"

	"quantavirt/appliance/trust"
	"quantavirt/internal/initapi"
	"quantavirt/internal/version"
	"quantavirt/pqc/attest"
)

// openTrust makes the service that knows what was booted.
func (d *daemon) openTrust() (err error) {
	deps := trust.Deps{
		Log: d.logger("trust"), Boot: func() initapi.Boot { return d.sys.Boot() }, Keystore: filepath.Join(d.o.dataDir, "keystore"),
		Running: func() int { return d.vms.Counts().Running },
		Node: func() attest.Node {
			return attest.Node{ID: d.sys.ID(), Hostname: d.sys.Hostname(), Version: version.Version}
		},
	}
	if d.init != nil {
		deps.Init = d.init
	}
	d.trust, err = trust.New(deps)
	return err
}
