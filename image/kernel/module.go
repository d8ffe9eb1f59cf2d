package kernel

import (
	"bytes"
	"compress/gzip"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"github.com/klauspost/compress/zstd"
	"github.com/ulikunitz/xz"
)

// Module is one file of a kernel's module directory.
type Module struct {
	Name string   // canonical
	Path string   // of the file as Debian packs it, compressed or not
	File string   // below the module directory and without compression: kernel/fs/ext4/ext4.ko
	Deps []string // Files it needs, in the order of modules.dep
}

// Read returns the module's ELF file, decompressed.
func (m Module) Read() ([]byte, error) {
	data, err := os.ReadFile(m.Path)
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	data, err = decompress(m.Path, data)
	if err != nil {
		return nil, fmt.Errorf("kernel: decompress %s: %w", m.Path, err)
	}
	if !bytes.HasPrefix(data, []byte("\x7fELF")) {
		return nil, fmt.Errorf("kernel: %s is not an ELF file", m.Path)
	}
	return data, nil
}

func decompress(name string, data []byte) ([]byte, error) {
	in := bytes.NewReader(data)
	switch filepath.Ext(name) {
	case ".xz":
		r, err := xz.NewReader(in)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	case ".zst":
		r, err := zstd.NewReader(in)
		if err != nil {
			return nil, err
		}
		defer r.Close()
		return io.ReadAll(r)
	case ".gz":
		r, err := gzip.NewReader(in)
		if err != nil {
			return nil, err
		}
		return io.ReadAll(r)
	}
	return data, nil
}

// uncompressed cuts the ending of a compressed module.
func uncompressed(file string) string {
	if i := strings.LastIndex(file, ".ko"); i >= 0 {
		return file[:i+len(".ko")]
	}
	return file
}

// Table is what depmod and the package say about the modules of a kernel.
type Table struct {
	modules map[string]*Module // by canonical name
	builtin map[string]string  // canonical name to file
}

// Table reads modules.dep and modules.builtin.
func (k Kernel) Table() (*Table, error) {
	t := &Table{modules: map[string]*Module{}, builtin: map[string]string{}}
	err := eachLine(filepath.Join(k.Modules, "modules.dep"), func(line string) error {
		file, deps, ok := strings.Cut(line, ":")
		if !ok {
			return fmt.Errorf("no colon in %q", line)
		}
		m := &Module{Name: moduleName(file), Path: filepath.Join(k.Modules, file), File: uncompressed(file)}
		for dep := range strings.FieldsSeq(deps) {
			m.Deps = append(m.Deps, uncompressed(dep))
		}
		t.modules[m.Name] = m
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	err = eachLine(filepath.Join(k.Modules, "modules.builtin"), func(line string) error {
		t.builtin[moduleName(line)] = line
		return nil
	})
	if err != nil {
		return nil, fmt.Errorf("kernel: %w", err)
	}
	return t, nil
}

// Resolve returns the modules of the names with all they need, each once and
// after what it needs: the order to load them in. What is built into the kernel
// is left out.
func (t *Table) Resolve(names []string) ([]Module, error) {
	var (
		order []Module
		seen  = map[string]bool{}
		visit func(name string) error
	)
	visit = func(name string) error {
		name = Canonical(name)
		if _, ok := t.builtin[name]; ok || seen[name] {
			return nil
		}
		m, ok := t.modules[name]
		if !ok {
			return fmt.Errorf("%w: %s", ErrNoModule, name)
		}
		seen[name] = true
		for i := len(m.Deps) - 1; i >= 0; i-- { // modules.dep has the direct one first
			if err := visit(moduleName(m.Deps[i])); err != nil {
				return fmt.Errorf("%s needs: %w", name, err)
			}
		}
		order = append(order, *m)
		return nil
	}
	for _, name := range names {
		if err := visit(name); err != nil {
			return nil, fmt.Errorf("kernel: %w", err)
		}
	}
	return order, nil
}

// Resolve is Table.Resolve for who needs the table only once.
func (k Kernel) Resolve(names []string) ([]Module, error) {
	t, err := k.Table()
	if err != nil {
		return nil, err
	}
	return t.Resolve(names)
}

// Builtin tells whether a module is part of the boot image.
func (t *Table) Builtin(name string) bool {
	_, ok := t.builtin[Canonical(name)]
	return ok
}

// Names returns the canonical names of the modules whose File begins with a
// prefix, such as "kernel/drivers/net/ethernet/intel/".
func (t *Table) Names(prefix string) []string {
	var names []string
	for name, m := range t.modules {
		if strings.HasPrefix(m.File, prefix) {
			names = append(names, name)
		}
	}
	return names
}

// Index returns modules.alias with only the modules that keep accepts, in the
// order of depmod, and modules.builtin as it is.
func (k Kernel) Index(keep func(name string) bool) (alias, builtin string, err error) {
	var text strings.Builder
	err = eachLine(filepath.Join(k.Modules, "modules.alias"), func(line string) error {
		f := strings.Fields(line)
		if len(f) == 3 && f[0] == "alias" && keep(Canonical(f[2])) {
			fmt.Fprintln(&text, line)
		}
		return nil
	})
	if err != nil {
		return "", "", fmt.Errorf("kernel: %w", err)
	}
	data, err := os.ReadFile(filepath.Join(k.Modules, "modules.builtin"))
	if err != nil {
		return "", "", fmt.Errorf("kernel: %w", err)
	}
	return text.String(), string(data), nil
}
