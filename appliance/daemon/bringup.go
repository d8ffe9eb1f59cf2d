package daemon

import (
	"context"

	"quantavirt/appliance/store"
	"quantavirt/internal/initapi"
)

const lastBootKey = "last-boot"

type lastBoot struct {
	ID string `json:"id"`
}

// startNetworks waits until PID 1 has loaded the modules, so that the kernel does
// not look for them by itself.
func (d *daemon) startNetworks() {
	if d.init != nil {
		if _, err := d.init.BootStep(d.ctx, "network"); err != nil && d.ctx.Err() == nil {
			d.log.Warn("PID 1's modules for the network", "err", err)
		}
	}
	if err := d.net.Start(d.ctx, d.db); err != nil {
		d.log.Error("the network is not as wanted", "err", err)
	}
}

// bringUp does what the API need not wait for to be heard, but to be ready: the
// networks, which are under way, and the VMs that run already. Then the rest, as
// PID 1 finds it.
func (d *daemon) bringUp(boot initapi.Boot, networks <-chan struct{}, token string) {
	d.vms.Adopt(d.ctx, boot.BootID)
	d.vms.SyncConfigs()
	<-networks
	if d.ctx.Err() != nil {
		return
	}
	d.nameNode()
	d.sys.SetReady(nil)
	d.announce(token)
	d.followAddresses()
	// Nothing before this needed the API description; the first request will.
	if _, err := d.vms.Schema(); err != nil {
		d.log.Error("the API description", "err", err)
	}
	settled, err := d.sys.LoadBoot(d.ctx, true)
	close(d.booted)
	if d.ctx.Err() != nil {
		return
	}
	// Its module is there now, as are guests that could call.
	if d.o.vsockPort != 0 {
		d.listenVsock()
	}
	if err != nil {
		d.log.Error("PID 1's boot steps", "err", err)
		return
	}
	d.afterBoot(settled)
}

// afterBoot begins what needs the results of the boot steps.
func (d *daemon) afterBoot(boot initapi.Boot) {
	d.spawn(func() {
		d.crypto.Start(d.ctx, boot.Cards)
		if err := d.crypto.Feed(d.ctx); err != nil && d.ctx.Err() == nil {
			d.log.Warn("the kernel's entropy is not fed by a card", "err", err)
		}
	})
	if d.init != nil && !d.o.noNetwork {
		d.spawn(func() { d.sys.SyncClock(d.ctx, ntpServers(boot.Options)) })
	}
	if d.firstStart(boot.BootID) {
		d.spawn(func() { d.vms.Autostart(d.ctx) })
	}
}

// firstStart says whether this is the first daemon since the node was booted:
// only that one starts VMs by itself.
func (d *daemon) firstStart(bootID string) bool {
	if d.init == nil {
		return true
	}
	var last lastBoot
	err := d.db.Get(store.Settings, lastBootKey, &last)
	if err == nil && last.ID == bootID {
		return false
	}
	if err := d.db.Put(store.Settings, lastBootKey, lastBoot{ID: bootID}); err != nil {
		d.log.Error("note this boot", "err", err)
	}
	return true
}

// announce shows the banner and tells PID 1 that the API answers. The token is
// on the console only: neither log nor store have it.
func (d *daemon) announce(token string) {
	ctx, cancel := context.WithTimeout(d.ctx, endTime)
	defer cancel()
	if d.init != nil {
		if err := d.init.Ready(ctx); err != nil {
			d.log.Error("tell PID 1 that the API answers", "err", err)
		}
	}
	if err := d.console.show(ctx, banner(d.sys.Hostname(), url(d.net, d.o.listen), d.ca.Fingerprint(), token)); err != nil {
		d.log.Error("show the banner", "err", err)
	}
	d.log.Info("the API is ready", "url", url(d.net, d.o.listen), "authority", d.ca.Fingerprint())
}

// followAddresses keeps certificate and console right when the address of the
// node changes.
func (d *daemon) followAddresses() {
	changed := make(chan struct{}, 1)
	d.net.OnChange(func() {
		select {
		case changed <- struct{}{}:
		default:
		}
	})
	shown := url(d.net, d.o.listen)
	d.spawn(func() {
		for {
			select {
			case <-d.ctx.Done():
				return
			case <-changed:
			}
			d.nameNode()
			if now := url(d.net, d.o.listen); now != shown {
				shown = now
				d.announceAgain()
			}
		}
	})
}

func (d *daemon) announceAgain() {
	ctx, cancel := context.WithTimeout(d.ctx, endTime)
	defer cancel()
	if err := d.console.show(ctx, banner(d.sys.Hostname(), url(d.net, d.o.listen), d.ca.Fingerprint(), "")); err != nil {
		d.log.Error("show the banner", "err", err)
	}
}
