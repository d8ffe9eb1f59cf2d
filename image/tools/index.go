package tools

import (
	"context"
	"fmt"
	"net/url"
	"os"
	"path/filepath"
	"slices"
	"strings"
)

// index writes what the packages' own scripts would have: modules.dep and its
// kind, and the list of packages.
func (r Root) index(ctx context.Context) error {
	dirs, err := filepath.Glob(r.Path("usr", "lib", "modules", "*"))
	if err != nil {
		return err
	}
	for _, dir := range dirs {
		depmod := r.Command("depmod", "-b", r.Dir, "-m", "/usr/lib/modules", filepath.Base(dir))
		if out, err := depmod.CombinedOutput(); err != nil {
			return fmt.Errorf("depmod %s: %w: %s", filepath.Base(dir), err, out)
		}
		if ctx.Err() != nil {
			return context.Cause(ctx)
		}
	}
	sums, err := os.ReadFile(r.Path(packagesFile + ".sums"))
	if err != nil {
		return err
	}
	list, err := packageList(string(sums))
	if err != nil {
		return err
	}
	return os.WriteFile(r.Path(packagesFile), []byte(list), 0o644)
}

// packageList makes the list of packages from the output of sha256sum over
// files named name_version_architecture.deb.
func packageList(sums string) (string, error) {
	var lines []string
	for line := range strings.Lines(sums) {
		sum, file, ok := strings.Cut(strings.TrimSpace(line), "  ")
		parts := strings.Split(strings.TrimSuffix(file, ".deb"), "_")
		if !ok || len(parts) != 3 {
			return "", fmt.Errorf("not the checksum of a package: %q", line)
		}
		version, err := url.PathUnescape(parts[1]) // a colon is %3a in the name
		if err != nil {
			return "", fmt.Errorf("version of %s: %w", file, err)
		}
		lines = append(lines, fmt.Sprintf("%s %s %s %s\n", parts[0], version, parts[2], sum))
	}
	slices.Sort(lines)
	return strings.Join(lines, ""), nil
}
