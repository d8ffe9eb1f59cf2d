package image

import (
	"context"
	"encoding/json"
	"fmt"
	"go/ast"
	"go/parser"
	"go/token"
	"os"
	"os/exec"
	"path"
	"path/filepath"
	"strings"

	"github.com/u-root/mkuimage/cpio"
	"github.com/u-root/mkuimage/uimage/builder"
	"github.com/u-root/mkuimage/uimage/initramfs"
	"github.com/u-root/uio/llog"
)

// multicallBuilder is u-root's builder for all programs as one file, which
// tells by its name what it is. The file stands where the last program would,
// and the others are links to it.
//
// The commands stay ordinary commands in the tree. For this build an overlay
// (go help build, -overlay) shows their main packages to the compiler under
// other names, with main as an exported function, which is what gobusybox does
// with copies.
type multicallBuilder struct {
	ctx      context.Context
	b        *build
	programs []Program
	groups   map[string]string
}

var _ builder.Builder = (*multicallBuilder)(nil)

// multicallDir is the import path, below the module's, of the main package
// that exists only in the overlay.
const multicallDir = "quantavirt-multicall"

// DefaultBinaryDir implements builder.Builder.
func (m *multicallBuilder) DefaultBinaryDir() string { return "bin" }

// Build implements builder.Builder.
func (m *multicallBuilder) Build(_ *llog.Logger, files *initramfs.Files, opts builder.Opts) error {
	home := m.programs[len(m.programs)-1]
	out := filepath.Join(m.b.dir, "programs", "multicall")
	var names []string
	for _, p := range m.programs {
		names = append(names, "/"+p.Path)
	}
	title := strings.Join(names, " ")
	err := m.b.steps.do("go build "+title+" as one program", func() error {
		overlay, err := m.overlay(opts.TempDir)
		if err != nil {
			return err
		}
		return goBuild(m.ctx, m.b.Source, out, "./"+multicallDir,
			"-X quantavirt/internal/version.Version="+m.b.Version, []string{"-overlay", overlay})
	})
	if err != nil {
		return err
	}
	for _, p := range m.programs[:len(m.programs)-1] {
		if err := files.AddRecord(cpio.Symlink(p.Path, "/"+home.Path)); err != nil {
			return err
		}
	}
	return addProgram(files, home.Path, out, m.groups, title)
}

// overlay writes the replaced files below dir and returns the overlay's path.
func (m *multicallBuilder) overlay(dir string) (string, error) {
	replace := map[string]string{}
	add := func(path, text string) error {
		file := filepath.Join(dir, fmt.Sprintf("%d.go", len(replace)))
		replace[path] = file
		return os.WriteFile(file, []byte(text), 0o644)
	}
	var imports, cases strings.Builder
	for i, p := range m.programs {
		pkg, err := listPackage(m.ctx, m.b.Source, p.Package)
		if err != nil {
			return "", err
		}
		for _, name := range pkg.GoFiles {
			file := filepath.Join(pkg.Dir, name)
			text, err := importable(file)
			if err != nil {
				return "", err
			}
			if err := add(file, text); err != nil {
				return "", fmt.Errorf("image: %w", err)
			}
		}
		for _, name := range append(pkg.TestGoFiles, pkg.XTestGoFiles...) {
			replace[filepath.Join(pkg.Dir, name)] = "" // not there: a test stays in package main
		}
		fmt.Fprintf(&imports, "\tp%d %q\n", i, pkg.ImportPath)
		if i == len(m.programs)-1 {
			fmt.Fprintf(&cases, "\tdefault:\n\t\tp%d.Main()\n", i)
		} else {
			fmt.Fprintf(&cases, "\tcase %q:\n\t\tp%d.Main()\n", path.Base(p.Path), i)
		}
	}
	main := "package main\n\nimport (\n\t\"os\"\n\t\"path\"\n\n" + imports.String() + ")\n\nfunc main() {\n\tswitch path.Base(os.Args[0]) {\n" + cases.String() + "\t}\n}\n"
	if err := add(filepath.Join(m.b.Source, multicallDir, "main.go"), main); err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	text, err := json.Marshal(map[string]any{"Replace": replace})
	if err != nil {
		return "", err
	}
	file := filepath.Join(dir, "overlay.json")
	return file, os.WriteFile(file, text, 0o644)
}

// importable returns the text of a file of a main package, changed so that
// another package can import it and call Main. Lines keep their numbers.
func importable(file string) (string, error) {
	text, err := os.ReadFile(file)
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	set := token.NewFileSet()
	parsed, err := parser.ParseFile(set, file, text, parser.SkipObjectResolution)
	if err != nil {
		return "", fmt.Errorf("image: %w", err)
	}
	replace := func(at token.Pos, old, with string) {
		i := set.Position(at).Offset
		text = []byte(string(text[:i]) + with + string(text[i+len(old):]))
	}
	for _, d := range parsed.Decls { // after the package clause, so changed first
		if f, ok := d.(*ast.FuncDecl); ok && f.Recv == nil && f.Name.Name == "main" {
			replace(f.Name.Pos(), "main", "Main")
		}
	}
	replace(parsed.Name.Pos(), parsed.Name.Name, "program")
	return string(text), nil
}

// goPackage is what go list says about a package.
type goPackage struct {
	Dir, ImportPath                    string
	GoFiles, TestGoFiles, XTestGoFiles []string
}

func listPackage(ctx context.Context, source, pattern string) (goPackage, error) {
	cmd := exec.CommandContext(ctx, "go", "list", "-json=Dir,ImportPath,GoFiles,TestGoFiles,XTestGoFiles", pattern)
	cmd.Dir = source
	cmd.Env = append(os.Environ(), programEnv...)
	out, err := cmd.Output()
	if err != nil {
		return goPackage{}, fmt.Errorf("image: go list %s: %w", pattern, err)
	}
	var p goPackage
	if err := json.Unmarshal(out, &p); err != nil {
		return goPackage{}, fmt.Errorf("image: go list %s: %w", pattern, err)
	}
	return p, nil
}
