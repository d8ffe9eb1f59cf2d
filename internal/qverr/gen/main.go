// Command gen writes everything that is made from the error catalogue:
// docs/errors.md and the C headers in internal/qverr/include/quantavirt.
package main

import (
	"flag"
	"fmt"
	"os"
	"path/filepath"
)

func main() {
	root := flag.String("root", ".", "top folder of the repository")
	flag.Parse()
	if err := run(*root); err != nil {
		fmt.Fprintln(os.Stderr, "gen:", err)
		os.Exit(1)
	}
}

func run(root string) error {
	files, err := render(root)
	if err != nil {
		return err
	}
	for path, content := range files {
		path = filepath.Join(root, path)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			return err
		}
		if err := os.WriteFile(path, []byte(content), 0o644); err != nil {
			return err
		}
	}
	return nil
}

// render returns the generated files by their path below root.
func render(root string) (map[string]string, error) {
	raised, err := raisedCodes(root)
	if err != nil {
		return nil, fmt.Errorf("scan the sources for raised codes: %w", err)
	}
	files := map[string]string{"docs/errors.md": page(raised)}
	for _, h := range headers {
		files["internal/qverr/include/quantavirt/"+h.file] = h.render()
	}
	return files, nil
}
