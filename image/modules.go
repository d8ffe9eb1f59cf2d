package image

import (
	"bufio"
	"bytes"
	"embed"
	"fmt"
	"path"
	"slices"
	"strings"
	"sync"

	"github.com/u-root/mkuimage/cpio"
	"golang.org/x/sync/errgroup"

	"quantavirt/image/kernel"
)

//go:embed modules/*.list
var moduleLists embed.FS

// moduleGroup is a heading of a module list and the names below it.
type moduleGroup struct {
	name  string
	names []string
}

// moduleList says which modules go into an image.
type moduleList struct {
	groups  []moduleGroup
	network []string // to load for the node's own network, in order
	always  []string // to load whatever is plugged, in order
}

// readModuleList reads the list of a build.
func readModuleList(build string) (moduleList, error) {
	data, err := moduleLists.ReadFile("modules/" + build + ".list")
	if err != nil {
		return moduleList{}, fmt.Errorf("image: no build %q: want virtual or hardware: %w", build, err)
	}
	return parseModuleList(data)
}

func parseModuleList(data []byte) (moduleList, error) {
	var list moduleList
	s := bufio.NewScanner(bytes.NewReader(data))
	for n := 1; s.Scan(); n++ {
		line, _, _ := strings.Cut(s.Text(), "#")
		line = strings.TrimSpace(line)
		if line == "" {
			continue
		}
		if heading, ok := strings.CutPrefix(line, "["); ok {
			list.groups = append(list.groups, moduleGroup{name: strings.TrimSuffix(heading, "]")})
			continue
		}
		name := strings.TrimLeft(line, "+!")
		if name == "" || strings.ContainsAny(name, " \t+!") || len(line) > len(name)+1 || len(list.groups) == 0 {
			return moduleList{}, fmt.Errorf("image: module list, line %d: %q is no module below a [group]", n, line)
		}
		group := &list.groups[len(list.groups)-1]
		group.names = append(group.names, name)
		switch line[0] {
		case '!':
			list.network = append(list.network, kernel.Canonical(name))
		case '+':
			list.always = append(list.always, kernel.Canonical(name))
		}
	}
	return list, s.Err()
}

// modules resolves the list against a kernel. Every module is counted in the
// first group that needs it.
func (l moduleList) modules(table *kernel.Table) (all []kernel.Module, group map[string]string, err error) {
	group = map[string]string{}
	for _, g := range l.groups {
		var names []string
		for _, name := range g.names {
			if strings.HasSuffix(name, "/") {
				below := table.Names(name)
				slices.Sort(below)
				names = append(names, below...)
				continue
			}
			names = append(names, name)
		}
		found, err := table.Resolve(names)
		if err != nil {
			return nil, nil, fmt.Errorf("image: module list, [%s]: %w", g.name, err)
		}
		for _, m := range found {
			if _, ok := group[m.Name]; !ok {
				group[m.Name] = g.name
				all = append(all, m)
			}
		}
	}
	return all, group, nil
}

// moduleRecords returns the module directory of the image: the modules without
// compression, as the archive is compressed as a whole, and modules.dep,
// modules.alias and modules.builtin cut to what is there. firmware are the files
// that the modules may ask for, with the group of one that does.
func moduleRecords(k kernel.Kernel, list moduleList) (records []cpio.Record, group, firmware map[string]string, err error) {
	table, err := k.Table()
	if err != nil {
		return nil, nil, nil, err
	}
	modules, group, err := list.modules(table)
	if err != nil {
		return nil, nil, nil, err
	}
	dir := path.Join("lib/modules", k.Release)
	var (
		mu     sync.Mutex
		groups = map[string]string{} // by archive path
		tasks  errgroup.Group
		dep    strings.Builder
	)
	slices.SortFunc(modules, func(a, b kernel.Module) int { return strings.Compare(a.File, b.File) })
	firmware = map[string]string{}
	tasks.SetLimit(4)
	for _, m := range modules {
		fmt.Fprintf(&dep, "%s:", m.File)
		for _, d := range m.Deps {
			fmt.Fprintf(&dep, " %s", d)
		}
		dep.WriteByte('\n')
		tasks.Go(func() error {
			data, err := m.Read()
			if err != nil {
				return err
			}
			wants, err := kernel.Firmware(data)
			if err != nil {
				return fmt.Errorf("%s: %w", m.Name, err)
			}
			name := path.Join(dir, m.File)
			mu.Lock()
			defer mu.Unlock()
			for _, file := range wants {
				if have, ok := firmware[file]; !ok || group[m.Name] < have {
					firmware[file] = group[m.Name]
				}
			}
			records = append(records, cpio.StaticFile(name, string(data), 0o644))
			groups[name] = "modules: " + group[m.Name]
			return nil
		})
	}
	if err := tasks.Wait(); err != nil {
		return nil, nil, nil, err
	}
	alias, builtin, err := k.Index(func(name string) bool { _, ok := group[name]; return ok })
	if err != nil {
		return nil, nil, nil, err
	}
	for name, text := range map[string]string{
		path.Join(dir, "modules.dep"):     dep.String(),
		path.Join(dir, "modules.alias"):   alias,
		path.Join(dir, "modules.builtin"): builtin,
		"etc/quantavirt/modules.load":     strings.Join(list.always, "\n") + "\n",
		"etc/quantavirt/modules.network":  strings.Join(list.network, "\n") + "\n",
	} {
		records = append(records, cpio.StaticFile(name, text, 0o644))
		groups[name] = "modules: index"
	}
	return records, groups, firmware, nil
}
