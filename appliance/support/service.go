package support

import (
	"context"
	"io"
	"sync"
	"time"

	"quantavirt/appliance/support/archive"
	"quantavirt/internal/qverr"
)

const (
	// usualTime is for collecting one item.
	usualTime = 10 * time.Second
	// partTime is for all items of a part.
	partTime = 2 * time.Minute
)

// The parts of a bundle, in their order. Each is a folder.
const (
	PartSystem  = "system"
	PartLogs    = "logs"
	PartVMs     = "vms"
	PartCards   = "quac100"
	PartKernel  = "kernel"
	PartNetwork = "network"
)

// Part is one part of a bundle.
type Part struct {
	Name  string
	Items func() []Item // asked for when its turn has come; must not block
}

// Item is something to collect.
type Item struct {
	Name string        // for errors
	Time time.Duration // to collect it in, without that of sending; 0 for the usual
	// Collect hands its files over to add, whose errors end it. What could not be had
	// is its error; what was added before stays.
	Collect func(ctx context.Context, add func(File) error) error
}

// File is one file of a part: a value to be written as JSON, or a text.
type File struct {
	Name  string
	Value any
	Text  []byte
	Cut   int64 // bytes of the text's beginning that are left out already
}

// Deps is what the service stands on.
type Deps struct {
	Version string
	Node    func() (id, hostname string)
	Parts   []Part
}

// Service makes the bundles of a node, one at a time.
type Service struct {
	Deps
	busy sync.Mutex

	mu      sync.Mutex
	running map[string]bool // items whose collection has not ended
}

// New makes the service.
func New(d Deps) *Service { return &Service{Deps: d, running: make(map[string]bool)} }

// Bundle is one bundle to be written; it must be closed.
type Bundle struct {
	s        *Service
	manifest archive.Manifest
}

// Begin prepares a bundle. QV_ERR_BUSY: another one is being made.
func (s *Service) Begin() (*Bundle, error) {
	if !s.busy.TryLock() {
		return nil, qverr.New(qverr.Busy, "another support bundle is being made")
	}
	m := archive.Manifest{Version: s.Version, CreatedAt: time.Now().UTC()}
	m.NodeID, m.Hostname = s.Node()
	return &Bundle{s, m}, nil
}

// Name is a name for its file.
func (b *Bundle) Name() string { return archive.Folder(b.manifest) + ".tar.gz" }

// Close lets others be made.
func (b *Bundle) Close() { b.s.busy.Unlock() }

// Write makes the bundle. The error is that of w, or of ctx.
func (b *Bundle) Write(ctx context.Context, w io.Writer) error {
	out := archive.NewWriter(w, b.manifest)
	for _, p := range b.s.Parts {
		if err := out.Begin(p.Name); err != nil {
			return err
		}
		left := partTime
		for _, it := range p.Items() {
			limit := usualTime
			if it.Time != 0 {
				limit = it.Time
			}
			c := &collection{limit: min(limit, left), add: func(f File) error { return put(out, f) }}
			failed, err := b.s.collect(ctx, p.Name, it, c)
			if err != nil {
				return err
			}
			if failed != nil {
				out.Fail(failed)
			}
			left -= c.took
		}
	}
	return out.Close()
}

func put(out *archive.Writer, f File) error {
	if f.Value != nil {
		return out.JSON(f.Name, f.Value)
	}
	return out.Text(f.Name, f.Text, f.Cut)
}

// collection is one item on its way.
type collection struct {
	limit time.Duration
	took  time.Duration
	add   func(File) error
}

// collect collects one item. failed is what is noted in the bundle, err what ends it.
func (s *Service) collect(ctx context.Context, part string, it Item, c *collection) (failed, err error) {
	name := part + "/" + it.Name
	if c.limit <= 0 {
		return qverr.New(qverr.Timeout, "%s: the time for %s is over", name, part), nil
	}
	if !s.claim(name) {
		return qverr.New(qverr.Busy, "%s: that of an earlier bundle has not ended yet", name), nil
	}
	ctx, cancel := context.WithCancel(ctx)
	defer cancel()
	files, done := make(chan File), make(chan error, 1)
	go func() {
		defer s.release(name)
		done <- guard(func() error {
			return it.Collect(ctx, func(f File) error {
				select {
				case files <- f:
					return nil
				case <-ctx.Done():
					return ctx.Err()
				}
			})
		})
	}()
	return c.follow(ctx, name, files, done)
}

// follow adds what comes. The time that adding takes is the reader's, not the item's.
func (c *collection) follow(ctx context.Context, name string, files <-chan File, done <-chan error) (failed, err error) {
	timer := time.NewTimer(c.limit)
	defer timer.Stop()
	for {
		start := time.Now()
		select {
		case f := <-files:
			c.took += time.Since(start)
			if err := c.add(f); err != nil {
				return nil, err
			}
			timer.Reset(c.limit - c.took)
		case err := <-done:
			c.took += time.Since(start)
			if err == nil || ctx.Err() != nil {
				return nil, ctx.Err()
			}
			return qverr.New(qverr.CodeOf(err), "%s: %w", name, err), nil
		case <-timer.C:
			c.took = c.limit
			return qverr.New(qverr.Timeout, "%s: it has not answered within %s", name, c.limit), nil
		case <-ctx.Done():
			return nil, qverr.New(qverr.IO, "the support bundle is not wanted any more: %w", ctx.Err())
		}
	}
}

// guard makes a panic of a collector its failure.
func guard(collect func() error) (err error) {
	defer func() {
		if p := recover(); p != nil {
			err = qverr.New(qverr.Generic, "it hit a bug: %v", p)
		}
	}()
	return collect()
}

func (s *Service) claim(name string) bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.running[name] {
		return false
	}
	s.running[name] = true
	return true
}

func (s *Service) release(name string) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.running, name)
}

// Items makes a part's items of a list that is always the same.
func Items(items ...Item) func() []Item { return func() []Item { return items } }

// JSON is an item of one file, NAME.json.
func JSON[T any](name string, get func(ctx context.Context) (T, error)) Item {
	return Item{Name: name, Collect: func(ctx context.Context, add func(File) error) error {
		v, err := get(ctx)
		if err != nil {
			return err
		}
		return add(File{Name: name + ".json", Value: v})
	}}
}

// Value is JSON of what is at hand.
func Value[T any](name string, get func() T) Item {
	return JSON(name, func(context.Context) (T, error) { return get(), nil })
}

// Missing is an item that cannot be had.
func Missing(name string, why error) Item {
	return Item{Name: name, Collect: func(context.Context, func(File) error) error { return why }}
}
