package daemon

import (
	"context"
	"time"

	"quantavirt/appliance/store"
	"quantavirt/internal/initapi"
)

const lastBootKey = "last-boot"

type lastBoot struct {
	ID string `json:"id"`
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
	d.spawn(func() { d.fetchConfiguration(boot.Options) })
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
		d.spawn(func() { d.followCards(boot.CardLook) })
		if err := d.crypto.Feed(d.ctx); err != nil && d.ctx.Err() == nil {
			d.log.Warn("the kernel's entropy is not fed by a card", "err", err)
		}
	})
	if d.init != nil {
		d.spawn(func() {
			if err := d.pci.Watch(d.ctx); err != nil && d.ctx.Err() == nil {
				d.log.Warn("what the IOMMU stops is not logged", "err", err)
			}
		})
	}
	if d.init != nil && !d.o.noNetwork {
		d.spawn(func() {
			if d.awaitConfigured() {
				d.sys.SyncClock(d.ctx, d.timeServers(boot.Options))
			}
		})
	}
	first := d.firstStart(boot.BootID)
	d.spawn(func() {
		if !d.awaitConfigured() {
			return
		}
		if d.installConfigured() {
			return // the node goes down
		}
		d.makeConfigured()
		if first {
			d.vms.Autostart(d.ctx)
		}
	})
	d.spawn(func() { d.update.Start(d.ctx, boot) })
}

// followCards tells of the cards that are put in and taken out while the node runs.
func (d *daemon) followCards(look int) {
	for d.init != nil && d.ctx.Err() == nil {
		cards, err := d.init.Cards(d.ctx, look)
		if err == nil {
			look = cards.Look
			d.crypto.SetCards(d.ctx, cards.Cards)
			continue
		}
		if d.ctx.Err() != nil {
			return
		}
		d.log.Error("what PID 1 knows of cards", "err", err)
		select {
		case <-time.After(cardsAgain):
		case <-d.ctx.Done():
		}
	}
}

// cardsAgain is how long a PID 1 that does not answer is left alone.
const cardsAgain = 5 * time.Second

// awaitConfigured is false if the daemon ends before.
func (d *daemon) awaitConfigured() bool {
	select {
	case <-d.configured:
		return true
	case <-d.ctx.Done():
		return false
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
	d.showBanner(token)
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
				d.showBanner("")
			}
		}
	})
}

func (d *daemon) showBanner(token string) {
	ctx, cancel := context.WithTimeout(d.ctx, endTime)
	defer cancel()
	lines := banner(d.sys.Hostname(), url(d.net, d.o.listen), d.ca.Fingerprint(), token)
	lines = append(wrongLines(d.config.Info().Problems), lines...)
	if err := d.console.show(ctx, lines); err != nil {
		d.log.Error("show the banner", "err", err)
	}
}
