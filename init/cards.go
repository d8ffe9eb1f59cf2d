package main

import (
	"context"
	"errors"
	"fmt"

	"quantavirt/init/guard"
	"quantavirt/init/uevent"
	"quantavirt/internal/initapi/wire"
	"quantavirt/internal/qverr"
	"quantavirt/quac100/regs"
)

// bindCards binds the cards that are there, and from then on those that are put in.
func (n *node) bindCards(context.Context) error {
	if n.events != nil {
		changed := make(chan struct{}, 1)
		n.events.Subscribe(func(e uevent.Event) {
			if !ofCard(e) {
				return
			}
			select {
			case changed <- struct{}{}:
			default: // one look finds all
			}
		})
		guard.Loop(n.ctx, n.log, "cards", func(ctx context.Context) {
			for {
				select {
				case <-ctx.Done():
					return
				case <-changed:
				}
				if err := n.lookForCards(); err != nil {
					n.log.Error("cards", "err", err)
					n.say(err)
				}
			}
		})
	}
	return n.lookForCards()
}

// ofCard tells the coming and going of a QUAC 100; what exactly it is, sysfs knows.
func ofCard(e uevent.Event) bool {
	if e.Action == uevent.Lost {
		return true
	}
	return (e.Action == "add" || e.Action == "remove") && e.Env["SUBSYSTEM"] == "pci" &&
		e.Env["PCI_ID"] == fmt.Sprintf("%04X:%04X", regs.VendorID, regs.DeviceID)
}

// lookForCards binds every card and shows what there is. One that was put in may have a
// new IOMMU group.
func (n *node) lookForCards() error {
	n.looking.Lock()
	defer n.looking.Unlock()
	s := n.system()
	cards := s.Cards()
	n.showCards(cards, s.IOMMU())
	n.log.Info("cards", "there", cards)
	var errs []error
	for _, c := range cards {
		if c.Problem != nil {
			errs = append(errs, problem(c.Problem))
		}
	}
	return errors.Join(errs...)
}

// showCards shows what a look has found, and wakes those that wait for it.
func (n *node) showCards(cards []wire.Card, io wire.IOMMU) {
	n.mu.Lock()
	defer n.mu.Unlock()
	n.boot.IOMMU, n.boot.Cards = io, cards
	n.boot.CardLook++
	close(n.looked)
	n.looked = make(chan struct{})
}

// WaitCards implements control.Node.
func (n *node) WaitCards(ctx context.Context, after int) (wire.Cards, error) {
	for {
		n.mu.Lock()
		c, next := wire.Cards{Look: n.boot.CardLook, Cards: n.boot.Cards}, n.looked
		n.mu.Unlock()
		if c.Look > after {
			return c, nil
		}
		select {
		case <-next:
		case <-ctx.Done():
			return c, qverr.New(qverr.CodeOf(ctx.Err()), "wait for cards: %w", ctx.Err())
		}
	}
}
