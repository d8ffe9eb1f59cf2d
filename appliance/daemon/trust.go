package daemon

import (
	"errors"
	"io"
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

// resealFor seals the data volume and the keystore for a system that is about to be
// tried.
func (d *daemon) resealFor(uki io.ReaderAt, size int64, name string) error {
	return errors.Join(d.trust.ResealFor(uki, size, name), d.crypto.ResealFor(d.ctx, uki, size, name))
}
