package rescue

import (
	"context"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/logs"
	"quantavirt/appliance/support"
	"quantavirt/internal/version"
)

// supportBundles gives what can be had without the daemon; the rest is named as missing.
func (r *rescue) supportBundles(source logs.Source) *support.Service {
	n := node{r}
	return support.New(support.Deps{
		Version: version.Version,
		Node:    func() (string, string) { return r.saved.Node, r.hostname() },
		Parts: []support.Part{
			{Name: support.PartSystem, Items: support.Items(
				support.JSON("info", n.Info),
				support.JSON("slots", r.update.Slots),
				support.JSON("disks", func(context.Context) ([]spec.SystemDisk, error) { return n.Disks() }),
				support.Value("tasks", func() []spec.Task { return r.tasks.List(nil) }),
			)},
			support.Logs(source.Path, source.Boot),
			{Name: support.PartVMs, Items: support.Items(support.Missing("vms", errRescue()))},
			{Name: support.PartCards, Items: support.Items(support.Missing("cards", errRescue()))},
			support.Kernel(r.update.Panics),
			support.Network(support.Value("uplink", r.net.info)),
		},
	})
}
