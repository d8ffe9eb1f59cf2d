package daemon

import (
	"context"
	"encoding/json"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/support"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// supportBundles makes what a support bundle is made of.
func (d *daemon) supportBundles() *support.Service {
	logs := d.logs()
	return support.New(support.Deps{
		Version: version.Version,
		Node:    func() (string, string) { return d.sys.ID(), d.sys.Hostname() },
		Parts: []support.Part{
			{Name: support.PartSystem, Items: support.Items(
				support.JSON("info", d.sys.Info),
				support.JSON("capabilities", d.sys.Capabilities),
				support.JSON("slots", d.update.Slots),
				support.JSON("measurements", d.measurements),
				support.JSON("disks", func(context.Context) ([]spec.SystemDisk, error) { return d.sys.Disks() }),
				support.Item{Name: "configuration", Collect: d.collectConfiguration},
				support.Value("virtual-disks", d.storage.Disks),
				support.Value("images", d.storage.Images),
				support.Value("tasks", func() []spec.Task { return d.tasks.List(nil) }),
			)},
			support.Logs(logs.Path, logs.Boot),
			support.Machines(d.vms),
			{Name: support.PartCards, Items: support.Items(
				support.JSON("cards", d.crypto.Diagnostics),
				support.Value("keystore", d.crypto.KeystoreSeen),
			)},
			support.Kernel(d.update.Panics),
			support.Network(
				support.Value("networks", d.net.List),
				support.Value("uplink", d.net.UplinkState),
				support.JSON("leases", d.allLeases),
			),
		},
	})
}

// measurements are none where there is no TPM.
func (d *daemon) measurements(ctx context.Context) (spec.Measurements, error) {
	m, err := d.trust.Measurements(ctx)
	if qverr.CodeOf(err) == qverr.NoDev {
		err = nil
	}
	return m, err
}

// collectConfiguration adds the configuration that the node took, if it has one. What is
// no JSON is told as a text.
func (d *daemon) collectConfiguration(_ context.Context, add func(support.File) error) error {
	data := d.config.Bytes()
	if data == nil {
		return nil
	}
	if json.Valid(data) {
		return add(support.File{Name: "configuration.json", Value: json.RawMessage(data)})
	}
	return add(support.File{Name: "configuration.txt", Text: data})
}

func (d *daemon) allLeases(context.Context) (map[string][]spec.Lease, error) {
	out := make(map[string][]spec.Lease)
	for _, n := range d.net.List() {
		leases, err := d.net.Leases(n.Name)
		if err != nil {
			return nil, err
		}
		out[n.Name] = leases
	}
	return out, nil
}
