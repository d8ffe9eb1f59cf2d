package main

import (
	"go/ast"
	"go/parser"
	"go/token"
	"io/fs"
	"path/filepath"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

const qverrPath = "quantavirt/internal/qverr"

// raisedCodes finds the codes that non-test sources outside qverr mention
// other than to compare with them. FromResponse raises what it maps to.
func raisedCodes(root string) (map[qverr.Code]bool, error) {
	consts, err := codeConstants(filepath.Join(root, "internal/qverr/codes.go"))
	if err != nil {
		return nil, err
	}
	raised := make(map[qverr.Code]bool)
	err = filepath.WalkDir(root, func(path string, d fs.DirEntry, err error) error {
		if err != nil {
			return err
		}
		if d.IsDir() {
			if skipDir(root, path, d.Name()) {
				return filepath.SkipDir
			}
			return nil
		}
		if !strings.HasSuffix(path, ".go") || strings.HasSuffix(path, "_test.go") {
			return nil
		}
		for _, name := range usedNames(path) {
			if code, ok := consts[name]; ok {
				raised[code] = true
			}
			if name == "FromResponse" {
				for _, r := range qverr.Responses() {
					raised[r.Code] = true
				}
			}
		}
		return nil
	})
	return raised, err
}

func skipDir(root, path, name string) bool {
	if path == root {
		return false
	}
	return strings.HasPrefix(name, ".") || name == "build" || name == "testdata" ||
		path == filepath.Join(root, "internal", "qverr")
}

// codeConstants reads the identifiers of the codes.
func codeConstants(path string) (map[string]qverr.Code, error) {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, 0)
	if err != nil {
		return nil, err
	}
	consts := make(map[string]qverr.Code)
	ast.Inspect(file, func(n ast.Node) bool {
		spec, ok := n.(*ast.ValueSpec)
		if !ok || len(spec.Values) != 1 {
			return true
		}
		value := spec.Values[0]
		sign := 1
		if u, ok := value.(*ast.UnaryExpr); ok {
			value, sign = u.X, -1
		}
		if lit, ok := value.(*ast.BasicLit); ok {
			if v, err := strconv.Atoi(lit.Value); err == nil {
				consts[spec.Names[0].Name] = qverr.Code(sign * v)
			}
		}
		return true
	})
	return consts, nil
}

// usedNames lists X of every qverr.X in a file. A file that does not parse
// mentions nothing: the compiler is the one to complain.
func usedNames(path string) []string {
	file, err := parser.ParseFile(token.NewFileSet(), path, nil, parser.SkipObjectResolution)
	if err != nil {
		return nil
	}
	local := importName(file)
	if local == "" {
		return nil
	}
	var names []string
	ast.Inspect(file, func(n ast.Node) bool {
		switch n := n.(type) {
		case *ast.CallExpr: // errors.Is(err, qverr.X) compares
			if isSelector(n.Fun, "errors", "Is") {
				return false
			}
		case *ast.BinaryExpr:
			if n.Op == token.EQL || n.Op == token.NEQ {
				return false
			}
		case *ast.SelectorExpr:
			if id, ok := n.X.(*ast.Ident); ok && id.Name == local {
				names = append(names, n.Sel.Name)
			}
		}
		return true
	})
	return names
}

func importName(file *ast.File) string {
	for _, imp := range file.Imports {
		if path, err := strconv.Unquote(imp.Path.Value); err != nil || path != qverrPath {
			continue
		}
		if imp.Name != nil {
			return imp.Name.Name
		}
		return "qverr"
	}
	return ""
}

func isSelector(e ast.Expr, x, sel string) bool {
	s, ok := e.(*ast.SelectorExpr)
	if !ok || s.Sel.Name != sel {
		return false
	}
	id, ok := s.X.(*ast.Ident)
	return ok && id.Name == x
}
