package rtnl

import (
	"context"
	"fmt"
	"sync"

	"github.com/vishvananda/netlink"
)

// Watcher keeps a table of all links up to date and tells when it changed.
type Watcher struct {
	mu      sync.Mutex
	links   map[int]netlink.Link
	changed chan struct{}
	done    chan struct{}
	err     error
}

// watchBuffer is the receive buffer of the subscription, in bytes: an overflow
// costs a new listing, nothing else.
const watchBuffer = 1 << 20

// Watch subscribes and then lists, so that no change is lost between the two.
// The table is complete when it returns; it is kept until ctx ends.
func Watch(ctx context.Context) (*Watcher, error) {
	w := &Watcher{changed: make(chan struct{}), done: make(chan struct{})}
	updates, stop, err := w.subscribe()
	if err != nil {
		return nil, err
	}
	go w.run(ctx, updates, stop)
	return w, nil
}

// subscribe opens a subscription and fills the table.
func (w *Watcher) subscribe() (chan netlink.LinkUpdate, chan struct{}, error) {
	updates := make(chan netlink.LinkUpdate, 64)
	stop := make(chan struct{})
	opts := netlink.LinkSubscribeOptions{ReceiveBufferSize: watchBuffer}
	if err := netlink.LinkSubscribeWithOptions(updates, stop, opts); err != nil {
		return nil, nil, fmt.Errorf("subscribe to link changes: %w", err)
	}
	links, err := Links()
	if err != nil {
		close(stop)
		go drain(updates)
		return nil, nil, fmt.Errorf("list links: %w", err)
	}
	w.mu.Lock()
	defer w.mu.Unlock()
	w.links = make(map[int]netlink.Link, len(links))
	for _, l := range links {
		w.links[l.Attrs().Index] = l
	}
	w.notify()
	return updates, stop, nil
}

// drain lets the subscription's goroutine end: it may be blocked on its channel.
func drain(updates <-chan netlink.LinkUpdate) {
	for range updates {
	}
}

func (w *Watcher) run(ctx context.Context, updates chan netlink.LinkUpdate, stop chan struct{}) {
	defer close(w.done)
	for {
		select {
		case <-ctx.Done():
			close(stop)
			drain(updates)
			return
		case u, ok := <-updates:
			if ok {
				w.update(u)
				continue
			}
			// The socket overflowed: what was missed is in a new listing.
			close(stop)
			var err error
			if updates, stop, err = w.subscribe(); err != nil {
				w.mu.Lock()
				w.err = err
				w.notify()
				w.mu.Unlock()
				return
			}
		}
	}
}

// update is one message. An RTM_DELLINK of a bridge port's bridge side
// (AF_BRIDGE) only says that it left the bridge.
func (w *Watcher) update(u netlink.LinkUpdate) {
	w.mu.Lock()
	defer w.mu.Unlock()
	const rtmDelLink = 17
	switch {
	case u.IfInfomsg.Family != 0:
		return
	case u.Header.Type == rtmDelLink:
		delete(w.links, u.Link.Attrs().Index)
	default:
		w.links[u.Link.Attrs().Index] = u.Link
	}
	w.notify()
}

// notify wakes all who wait; mu is held.
func (w *Watcher) notify() {
	close(w.changed)
	w.changed = make(chan struct{})
}

// Links returns the table and a channel that is closed at the next change. The
// error is that of a subscription that could not be renewed.
func (w *Watcher) Links() ([]netlink.Link, <-chan struct{}, error) {
	w.mu.Lock()
	defer w.mu.Unlock()
	out := make([]netlink.Link, 0, len(w.links))
	for _, l := range w.links {
		out = append(out, l)
	}
	return out, w.changed, w.err
}

// Wait returns when the watcher has ended after its ctx.
func (w *Watcher) Wait() { <-w.done }
