package guest

import (
	"context"
	"debug/elf"
	"errors"
	"fmt"
	"io"
	"io/fs"
	"os"
	"path/filepath"

	"quantavirt/image/tools"
)

// fioImageMiB is the size of fio's file system: librbd and its kind, which Debian's fio
// is linked with, fill most of it.
const fioImageMiB = 80

// fioLibraries are where the shared objects of fio are.
var fioLibraries = []string{"usr/lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu/ceph"}

// Fio writes into dir a file system with fio and all that it is linked with, to be
// run as lib/ld-linux-x86-64.so.2 --library-path lib bin/fio, and returns its path.
func Fio(ctx context.Context, root tools.Root, dir string) (string, error) {
	packages, err := tools.Guests(ctx, io.Discard)
	if err != nil {
		return "", err
	}
	tree := filepath.Join(dir, "fio")
	if err := os.RemoveAll(tree); err != nil {
		return "", err
	}
	for _, d := range []string{"bin", "lib"} {
		if err := os.MkdirAll(filepath.Join(tree, d), 0o755); err != nil {
			return "", err
		}
	}
	program := packages.Path("usr", "bin", "fio")
	if err := copyFile(filepath.Join(tree, "bin", "fio"), program); err != nil {
		return "", err
	}
	c := closure{packages, filepath.Join(tree, "lib"), map[string]bool{}}
	if err := errors.Join(c.add("ld-linux-x86-64.so.2"), c.needed(program)); err != nil {
		return "", err
	}
	image := filepath.Join(dir, "fio.img")
	if err := sparse(image, fioImageMiB<<20); err != nil {
		return "", err
	}
	// Without a journal: it is only read.
	if out, err := root.Command("mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-d", tree, image).CombinedOutput(); err != nil {
		return "", fmt.Errorf("guest: mke2fs of fio: %w: %s", err, out)
	}
	return image, nil
}

// closure collects shared objects and what they need in turn.
type closure struct {
	root tools.Root
	dir  string
	seen map[string]bool
}

// needed adds what the object at path is linked with.
func (c *closure) needed(path string) error {
	f, err := elf.Open(path)
	if err != nil {
		return fmt.Errorf("guest: %w", err)
	}
	defer f.Close()
	names, err := f.ImportedLibraries()
	if err != nil {
		return fmt.Errorf("guest: libraries of %s: %w", path, err)
	}
	for _, name := range names {
		if err := c.add(name); err != nil {
			return err
		}
	}
	return nil
}

func (c *closure) add(name string) error {
	if c.seen[name] {
		return nil
	}
	c.seen[name] = true
	for _, d := range fioLibraries {
		path := c.root.Path(d, name)
		err := copyFile(filepath.Join(c.dir, name), path)
		if errors.Is(err, fs.ErrNotExist) {
			continue
		}
		if err != nil {
			return err
		}
		return c.needed(path)
	}
	return fmt.Errorf("guest: fio needs %s, which no package has brought", name)
}

func copyFile(to, from string) error {
	data, err := os.ReadFile(from)
	if err != nil {
		return err
	}
	return os.WriteFile(to, data, 0o755)
}
