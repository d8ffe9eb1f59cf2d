// Package kmod loads kernel modules: by name, and by the aliases of the devices
// that are plugged. Modules are independent of each other but for what
// modules.dep says, so they load side by side.
package kmod

import (
	"bufio"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Loader knows the modules of one directory and loads each at most once.
type Loader struct {
	deps    map[string][]string // file to the files it needs, in modules.dep's order
	files   map[string]string   // canonical name to file
	builtin map[string]bool
	aliases []alias
	insert  func(file string) error

	mu   sync.Mutex
	once map[string]func() error
}

type alias struct{ pattern, module string }

// New reads modules.dep, modules.alias and modules.builtin of dir, which is
// /lib/modules/RELEASE.
func New(dir string) (*Loader, error) {
	l := &Loader{
		deps: make(map[string][]string), files: make(map[string]string), builtin: make(map[string]bool),
		once: make(map[string]func() error), insert: finit,
	}
	err := lines(filepath.Join(dir, "modules.dep"), func(line string) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			return
		}
		file = filepath.Join(dir, file)
		l.files[canonical(file)] = file
		for need := range strings.FieldsSeq(needs) {
			l.deps[file] = append(l.deps[file], filepath.Join(dir, need))
		}
	})
	if err != nil {
		return nil, err
	}
	err = lines(filepath.Join(dir, "modules.alias"), func(line string) {
		if f := strings.Fields(line); len(f) == 3 && f[0] == "alias" {
			l.aliases = append(l.aliases, alias{f[1], f[2]})
		}
	})
	if err != nil {
		return nil, err
	}
	return l, lines(filepath.Join(dir, "modules.builtin"), func(line string) { l.builtin[canonical(line)] = true })
}

// lines calls f for each line of a file; a file that is not there has none.
func lines(name string, f func(string)) error {
	file, err := os.Open(name)
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	if err != nil {
		return qverr.New(qverr.IO, "read the list of modules: %w", err)
	}
	defer file.Close()
	s := bufio.NewScanner(file)
	for s.Scan() {
		if line := strings.TrimSpace(s.Text()); line != "" && line[0] != '#' {
			f(line)
		}
	}
	return s.Err()
}

// canonical is the name that the kernel uses: without directory and ending,
// with _ for -.
func canonical(name string) string {
	base, _, _ := strings.Cut(path.Base(name), ".ko")
	return strings.ReplaceAll(base, "-", "_")
}

// Load loads a module and what it needs. NoEnt if the image does not have it.
func (l *Loader) Load(name string) error {
	name = canonical(name)
	if l.builtin[name] {
		return nil
	}
	file, ok := l.files[name]
	if !ok {
		return qverr.New(qverr.NoEnt, "the image has no module %s", name)
	}
	return l.load(file)
}

// load inserts a file after its dependencies, once for all callers.
func (l *Loader) load(file string) error {
	l.mu.Lock()
	once, ok := l.once[file]
	if !ok {
		once = sync.OnceValue(func() error {
			// modules.dep names what is needed first last.
			needs := l.deps[file]
			for i := len(needs) - 1; i >= 0; i-- {
				if err := l.load(needs[i]); err != nil {
					return err
				}
			}
			return l.insert(file)
		})
		l.once[file] = once
	}
	l.mu.Unlock()
	return once()
}

// LoadAll loads modules side by side and returns every failure.
func (l *Loader) LoadAll(names []string) error {
	errs := make([]error, len(names))
	var all sync.WaitGroup
	for i, name := range names {
		all.Go(func() { errs[i] = l.Load(name) })
	}
	all.Wait()
	return errors.Join(errs...)
}

// For returns the modules that have a driver for a device's modalias.
func (l *Loader) For(modalias string) []string {
	var names []string
	for _, a := range l.aliases {
		if ok, err := path.Match(a.pattern, modalias); ok && err == nil {
			names = append(names, a.module)
		}
	}
	return names
}

// Plugged returns the modules for the devices that sysfs (mounted at sys) shows
// now, each once.
func (l *Loader) Plugged(sys string) ([]string, error) {
	seen := make(map[string]bool)
	var names []string
	err := filepath.WalkDir(filepath.Join(sys, "devices"), func(file string, d fs.DirEntry, err error) error {
		if err != nil || d.Name() != "modalias" {
			return nil // devices come and go while we look
		}
		text, err := os.ReadFile(file)
		if err != nil {
			return nil
		}
		for _, name := range l.For(strings.TrimSpace(string(text))) {
			if !seen[name] {
				seen[name] = true
				names = append(names, name)
			}
		}
		return nil
	})
	return names, err
}

// finit gives a file to the kernel; one that is there already is no error.
func finit(file string) error {
	f, err := os.Open(file)
	if err != nil {
		return qverr.New(qverr.NoEnt, "module: %w", err)
	}
	defer f.Close()
	err = unix.FinitModule(int(f.Fd()), "", 0)
	if err != nil && !errors.Is(err, unix.EEXIST) {
		return qverr.New(qverr.FromErrno(errno(err)), "load module %s: %w", canonical(file), err)
	}
	return nil
}

func errno(err error) unix.Errno {
	var e unix.Errno
	if errors.As(err, &e) {
		return e
	}
	return unix.EIO
}

// Wanted reads a list of module names, one a line.
func Wanted(file string) ([]string, error) {
	var names []string
	err := lines(file, func(line string) { names = append(names, line) })
	if err != nil {
		return nil, fmt.Errorf("modules that are always loaded: %w", err)
	}
	return names, nil
}
