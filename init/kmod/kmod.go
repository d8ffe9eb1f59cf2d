package kmod

import (
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"slices"
	"strings"
	"sync"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/init/guard"
	"quantavirt/init/quiet"
	"quantavirt/internal/qverr"
)

// Options of a Loader.
type Options struct {
	Dir       string                     // /lib/modules/RELEASE
	Params    func(module string) string // parameters of a module; nil for none
	Blacklist []string                   // not loaded by alias
	// Loaded is told of each module that was given to the kernel; nil for nobody.
	Loaded func(module string, took time.Duration, err error)
	// Insert gives a file to the kernel; nil means finit_module(2).
	Insert func(file, params string) error
}

// Loader loads modules. Its methods may be called from any goroutine; each
// module is given to the kernel once, and what does not depend on each other is
// loaded at the same time.
type Loader struct {
	opts  Options
	index *index

	slots chan struct{} // one for each module that the kernel works on
	*progress
}

// progress is what a loader shares with its quiet one.
type progress struct {
	mu    sync.Mutex
	loads map[string]*load
}

// load is one module under way or done.
type load struct {
	done chan struct{}
	err  error
}

// New reads the tables of the module directory.
func New(o Options) (*Loader, error) {
	x, err := openIndex(o.Dir)
	if err != nil {
		return nil, err
	}
	if o.Insert == nil {
		o.Insert = insert
	}
	if o.Params == nil {
		o.Params = func(string) string { return "" }
	}
	return &Loader{opts: o, index: x, slots: newSlots(), progress: &progress{loads: make(map[string]*load)}}, nil
}

func newSlots() chan struct{} { return make(chan struct{}, runtime.NumCPU()) }

// Quiet is a loader of the same modules for those that nobody waits for: the
// kernel works on them with the lowest priority, and not in the place of others.
func (l *Loader) Quiet() *Loader {
	q := &Loader{opts: l.opts, index: l.index, slots: newSlots(), progress: l.progress}
	q.opts.Insert = func(file, params string) error {
		return quiet.Do("load "+file, func() error { return l.opts.Insert(file, params) })
	}
	return q
}

// Load loads a module, by its name, with all it needs. One that is built in or
// loaded already is fine; QV_ERR_NOENT: it is not in the image.
func (l *Loader) Load(name string) error { return l.load(Canonical(name), nil) }

func (l *Loader) load(name string, above []string) error {
	if slices.Contains(above, name) {
		return qverr.New(qverr.Config, "modules need each other: %s", strings.Join(append(above, name), " → "))
	}
	m, ok := l.index.modules[name]
	if !ok {
		if l.index.builtin[name] {
			return nil
		}
		return qverr.New(qverr.NoEnt, "module %s is not in the image", name)
	}
	l.mu.Lock()
	p, running := l.loads[name]
	if !running {
		p = &load{done: make(chan struct{})}
		l.loads[name] = p
	}
	l.mu.Unlock()
	if running {
		<-p.done
		return p.err
	}
	defer close(p.done)
	p.err = l.needs(m, append(slices.Clip(above), name))
	if p.err == nil {
		p.err = l.give(name, m)
	}
	if p.err != nil { // may be tried again later
		l.mu.Lock()
		delete(l.loads, name)
		l.mu.Unlock()
	}
	return p.err
}

// needs loads what a module needs, all at once: every one waits for its own.
func (l *Loader) needs(m module, above []string) error {
	if len(m.deps) == 0 {
		return nil
	}
	errs := make([]error, len(m.deps))
	var wg sync.WaitGroup
	for i, d := range m.deps {
		wg.Go(func() { errs[i] = guard.Call(d, func() error { return l.load(d, above) }) })
	}
	wg.Wait()
	return errors.Join(errs...)
}

func (l *Loader) give(name string, m module) error {
	l.slots <- struct{}{} // more than one for each processor would only wait inside the kernel
	defer func() { <-l.slots }()
	begin := time.Now()
	err := l.opts.Insert(filepath.Join(l.opts.Dir, m.file), l.opts.Params(name))
	if l.opts.Loaded != nil {
		l.opts.Loaded(name, time.Since(begin), err)
	}
	if err == nil || errors.Is(err, unix.EEXIST) {
		return nil
	}
	return qverr.New(qverr.CodeOf(err), "load module %s: %w", name, err)
}

// insert gives a file to the kernel. Compressed ones are the kernel's to unpack.
func insert(file, params string) error {
	f, err := os.Open(file)
	if err != nil {
		return err
	}
	defer func() { _ = f.Close() }()
	flags := 0
	if !strings.HasSuffix(file, ".ko") {
		flags = unix.MODULE_INIT_COMPRESSED_FILE
	}
	return unix.FinitModule(int(f.Fd()), params, flags)
}

// All loads modules by their names, the first ones first. The error names all
// that failed.
func (l *Loader) All(names []string) error {
	return each(names, l.Load)
}

// each calls fn for all names in their order, for a few at the same time.
func each(names []string, fn func(string) error) error {
	errs := make([]error, len(names))
	next := make(chan int)
	var wg sync.WaitGroup
	for range min(len(names), 2*runtime.NumCPU()) {
		wg.Go(func() {
			for i := range next {
				errs[i] = guard.Call(names[i], func() error { return fn(names[i]) })
			}
		})
	}
	for i := range names {
		next <- i
	}
	close(next)
	wg.Wait()
	err := errors.Join(errs...)
	if err == nil {
		return nil
	}
	return qverr.New(qverr.CodeOf(err), "%w", err)
}

// Ask loads the modules that an alias stands for: a device's modalias, or what
// the kernel asks modprobe for. It is no error if there are none, or if a
// driver finds no device that it likes (ENODEV).
func (l *Loader) Ask(alias string) error {
	var names []string
	for _, n := range l.index.find(alias) {
		if !slices.Contains(l.opts.Blacklist, n) {
			names = append(names, n)
		}
	}
	return each(names, func(n string) error {
		err := l.Load(n)
		if errors.Is(err, unix.ENODEV) {
			return nil
		}
		return err
	})
}

// Knows tells whether there is a loadable module for an alias.
func (l *Loader) Knows(alias string) bool {
	for _, n := range l.index.find(alias) {
		if _, ok := l.index.modules[n]; ok && !slices.Contains(l.opts.Blacklist, n) {
			return true
		}
	}
	return false
}

// ReadList reads a file with one module a line; '#' begins a comment.
func ReadList(file string) ([]string, error) {
	data, err := os.ReadFile(file)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "list of modules: %w", err)
	}
	var names []string
	for line := range lines(data) {
		name, _, _ := strings.Cut(line, "#")
		if name = strings.TrimSpace(name); name != "" {
			names = append(names, name)
		}
	}
	return names, nil
}

// Devices returns the modalias of every device of the named buses below root,
// which is /sys, without doubles; with no names, those of all buses and of the
// processors.
func Devices(root string, buses ...string) ([]string, error) {
	all := len(buses) == 0
	if all {
		entries, err := os.ReadDir(filepath.Join(root, "bus"))
		if err != nil {
			return nil, qverr.New(qverr.CodeOf(err), "look for devices: %w", err)
		}
		for _, e := range entries {
			buses = append(buses, e.Name())
		}
	}
	var found []string
	seen := make(map[string]bool)
	add := func(file string) {
		data, err := os.ReadFile(file)
		if err != nil {
			return // many devices have none
		}
		if a := strings.TrimSpace(string(data)); a != "" && !seen[a] {
			seen[a] = true
			found = append(found, a)
		}
	}
	if all {
		add(filepath.Join(root, "devices/system/cpu/modalias"))
	}
	for _, bus := range buses {
		dir := filepath.Join(root, "bus", bus, "devices")
		entries, err := os.ReadDir(dir)
		if err != nil {
			continue // a bus without devices
		}
		for _, e := range entries {
			add(filepath.Join(dir, e.Name(), "modalias"))
		}
	}
	return found, nil
}

// AskAll is Ask for many, at the same time.
func (l *Loader) AskAll(aliases []string) error { return each(aliases, l.Ask) }

// String is for the log.
func (l *Loader) String() string {
	l.mu.Lock()
	defer l.mu.Unlock()
	names := make([]string, 0, len(l.loads))
	for n := range l.loads {
		names = append(names, n)
	}
	slices.Sort(names)
	return fmt.Sprintf("%d modules: %s", len(names), strings.Join(names, " "))
}
