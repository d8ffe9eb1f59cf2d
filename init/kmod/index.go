// Package kmod loads kernel modules: by name with what they need, and by the
// alias that a device or the kernel asks with. It reads modules.dep,
// modules.alias and modules.builtin of the running kernel as depmod(8) writes
// them.
package kmod

import (
	"bytes"
	"errors"
	"io/fs"
	"os"
	"path"
	"path/filepath"
	"strings"

	"quantavirt/internal/qverr"
)

// Canonical is the form of a module's name that compares equal: '-' is '_'.
func Canonical(name string) string { return strings.ReplaceAll(name, "-", "_") }

// nameOf is the canonical name of the module in a file.
func nameOf(file string) string {
	base, _, _ := strings.Cut(path.Base(file), ".ko")
	return Canonical(base)
}

// module is a line of modules.dep.
type module struct {
	file string   // below the module directory
	deps []string // canonical names
}

// alias is a line of modules.alias.
type alias struct {
	pattern string
	module  string
}

// index is the module directory's tables.
type index struct {
	modules map[string]module
	builtin map[string]bool
	// aliases by what stands before the first of ':' and '-', as "pci" or "net";
	// those that begin with a wildcard are under "".
	aliases map[string][]alias
}

// openIndex reads the tables in dir, which is /lib/modules/RELEASE. A missing
// modules.builtin or modules.alias is an empty one.
func openIndex(dir string) (*index, error) {
	x := &index{modules: make(map[string]module), builtin: make(map[string]bool), aliases: make(map[string][]alias)}
	dep, err := os.ReadFile(filepath.Join(dir, "modules.dep"))
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "table of modules: %w", err)
	}
	for line := range lines(dep) {
		file, needs, ok := strings.Cut(line, ":")
		if !ok {
			continue
		}
		m := module{file: file}
		for _, d := range strings.Fields(needs) {
			m.deps = append(m.deps, nameOf(d))
		}
		x.modules[nameOf(file)] = m
	}
	var errs []error
	read := func(name string, each func(line string)) {
		data, err := os.ReadFile(filepath.Join(dir, name))
		if err != nil && !errors.Is(err, fs.ErrNotExist) {
			errs = append(errs, err)
		}
		for line := range lines(data) {
			each(line)
		}
	}
	read("modules.builtin", func(line string) { x.builtin[nameOf(line)] = true })
	read("modules.alias", func(line string) {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" {
			b := bucket(f[1])
			x.aliases[b] = append(x.aliases[b], alias{f[1], Canonical(f[2])})
		}
	})
	if err := errors.Join(errs...); err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "tables of modules: %w", err)
	}
	return x, nil
}

func lines(data []byte) func(func(string) bool) {
	return func(yield func(string) bool) {
		for line := range bytes.Lines(data) {
			s := strings.TrimSpace(string(line))
			if s != "" && s[0] != '#' && !yield(s) {
				return
			}
		}
	}
}

func bucket(pattern string) string {
	i := strings.IndexAny(pattern, ":-*?[")
	if i < 0 {
		return pattern
	}
	if pattern[i] != ':' && pattern[i] != '-' {
		return ""
	}
	return pattern[:i]
}

// find names the modules that an alias or a name stands for.
func (x *index) find(name string) []string {
	c := Canonical(name)
	if _, ok := x.modules[c]; ok {
		return []string{c}
	}
	if x.builtin[c] {
		return []string{c}
	}
	var found []string
	seen := make(map[string]bool)
	for _, b := range []string{bucket(name), ""} {
		for _, a := range x.aliases[b] {
			if !seen[a.module] && match(a.pattern, name) {
				seen[a.module] = true
				found = append(found, a.module)
			}
		}
	}
	return found
}

// match is fnmatch(3) without flags, as modprobe uses it: '*', '?' and [sets];
// '-' and '_' are different here. A set that is not closed matches nothing.
func match(pattern, s string) bool {
	star, mark := -1, 0
	p, i := 0, 0
	for i < len(s) {
		if p < len(pattern) && pattern[p] == '*' {
			star, mark = p, i
			p++
			continue
		}
		if n := matchOne(pattern[p:], s[i]); n > 0 {
			p += n
			i++
			continue
		}
		if star < 0 {
			return false
		}
		mark++
		p, i = star+1, mark
	}
	for p < len(pattern) && pattern[p] == '*' {
		p++
	}
	return p == len(pattern)
}

// matchOne matches a character with the pattern's first element and returns
// that element's length, or 0.
func matchOne(pattern string, c byte) int {
	switch {
	case pattern == "":
		return 0
	case pattern[0] == '?':
		return 1
	case pattern[0] != '[':
		if pattern[0] == c {
			return 1
		}
		return 0
	}
	end := strings.IndexByte(pattern[1:], ']') + 1
	if end < 1 {
		return 0
	}
	set := pattern[1:end]
	negate := strings.HasPrefix(set, "!")
	set = strings.TrimPrefix(set, "!")
	in := false
	for k := 0; k < len(set); k++ {
		if k+2 < len(set) && set[k+1] == '-' {
			in = in || set[k] <= c && c <= set[k+2]
			k += 2
			continue
		}
		in = in || set[k] == c
	}
	if in == negate {
		return 0
	}
	return end + 1
}
