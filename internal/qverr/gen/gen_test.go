package main

import (
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/internal/qverr"
)

const root = "../../.."

// The headers must be what the table says. The page also marks codes that
// nothing raises, so it changes with the sources of other packages.
func TestGeneratedFilesAreUpToDate(t *testing.T) {
	files, err := render(root)
	if err != nil {
		t.Fatal(err)
	}
	if len(files) != 7 {
		t.Errorf("%d files, want the page and six headers", len(files))
	}
	for path, want := range files {
		got, err := os.ReadFile(filepath.Join(root, path))
		if err != nil {
			t.Error(err)
			continue
		}
		if string(got) != want {
			t.Errorf("%s is out of date: run go generate ./internal/qverr%s", path, firstDifference(string(got), want))
		}
	}
}

func firstDifference(got, want string) string {
	g, w := strings.Split(got, "\n"), strings.Split(want, "\n")
	for i := range min(len(g), len(w)) {
		if g[i] != w[i] {
			return "\n- " + g[i] + "\n+ " + w[i]
		}
	}
	return ""
}

func TestEveryCodeHasAConstantAndAPlace(t *testing.T) {
	consts, err := codeConstants("../codes.go")
	if err != nil {
		t.Fatal(err)
	}
	values := make(map[qverr.Code]bool)
	for name, code := range consts {
		if values[code] {
			t.Errorf("%s repeats %d", name, int(code))
		}
		values[code] = true
	}
	text := page(nil)
	for _, e := range qverr.All() {
		if !values[e.Code] {
			t.Errorf("%s has no constant", e)
		}
		if !strings.Contains(text, "`"+e.Name+"`") {
			t.Errorf("%s is not on the page", e)
		}
	}
	if len(values) != len(qverr.All()) {
		t.Errorf("%d constants, %d rows", len(values), len(qverr.All()))
	}
}

func TestScan(t *testing.T) {
	dir := t.TempDir()
	write := func(name, text string) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o755); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, []byte(text), 0o644); err != nil {
			t.Fatal(err)
		}
	}
	codes, err := os.ReadFile("../codes.go")
	if err != nil {
		t.Fatal(err)
	}
	write("internal/qverr/codes.go", string(codes))
	const imp = "package p\nimport \"errors\"\nimport q \"quantavirt/internal/qverr\"\n"
	write("a.go", imp+"func f(e error) error { if errors.Is(e, q.NoEnt) || q.CodeOf(e) == q.Exist { return nil }; return q.New(q.StrLock, \"x\") }")
	write("a_test.go", imp+"var _ = q.StrIO")
	write("build/b.go", imp+"var _ = q.StrFull")
	write("card/c.go", imp+"var _ = q.FromResponse(1)")
	raised, err := raisedCodes(dir)
	if err != nil {
		t.Fatal(err)
	}
	for code, want := range map[qverr.Code]bool{
		qverr.StrLock: true, qverr.QUACDMA: true, qverr.NoEnt: false, qverr.Exist: false, qverr.StrIO: false, qverr.StrFull: false,
	} {
		if raised[code] != want {
			t.Errorf("raised[%d] = %v", int(code), raised[code])
		}
	}
}
