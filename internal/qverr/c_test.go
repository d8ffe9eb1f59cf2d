package qverr

import (
	"bufio"
	"bytes"
	"fmt"
	"os"
	"os/exec"
	"path/filepath"
	"strings"
	"testing"
)

// cProgram prints what the C headers say about every fact, and checks that the
// constants have their values at compile time.
func cProgram(t *testing.T) string {
	var b strings.Builder
	for _, h := range []string{"network", "storage", "migration", "quac100", "pqc"} {
		fmt.Fprintf(&b, "#include <quantavirt/%s_error.h>\n", h)
	}
	b.WriteString("#include <quantavirt/error.h>\n#include <stdio.h>\n\nint main(void)\n{\n    int i;\n    static const int codes[] = {\n")
	for _, row := range facts(t, "errors.tsv") {
		fmt.Fprintf(&b, "        %s,\n", row[1])
	}
	b.WriteString("        -99999\n    };\n    for (i = 0; i < (int)(sizeof codes / sizeof codes[0]); i++)\n")
	b.WriteString(`        printf("%d\t%s\t%s\t%d\t%d\t%s\n", codes[i], qv_strerror_name(codes[i]), qv_strerror_subsystem(codes[i]),
               qv_error_is_transient(codes[i]), qv_error_to_errno(codes[i]), qv_strerror(codes[i]));
`)
	for _, row := range facts(t, "responses.tsv") {
		fmt.Fprintf(&b, "    printf(\"%%d\\t%%d\\n\", %s, qv_error_from_quac100_response(%s));\n", row[1], row[1])
	}
	b.WriteString("    return 0;\n}\n")
	return b.String()
}

func compilers(t *testing.T) map[string][]string {
	found := make(map[string][]string)
	if cc, err := exec.LookPath("cc"); err == nil {
		found["C99"] = []string{cc, "-std=c99", "-pedantic"}
		found["C17"] = []string{cc, "-std=c17", "-pedantic"}
	}
	if cxx, err := exec.LookPath("c++"); err == nil {
		found["C++"] = []string{cxx, "-x", "c++", "-std=c++11", "-pedantic"}
	}
	if len(found) == 0 {
		t.Skip("no C compiler (cc, c++) on this machine")
	}
	return found
}

func TestCHeaders(t *testing.T) {
	dir := t.TempDir()
	source := filepath.Join(dir, "facts.c")
	if err := os.WriteFile(source, []byte(cProgram(t)), 0o644); err != nil {
		t.Fatal(err)
	}
	for language, compiler := range compilers(t) {
		t.Run(language, func(t *testing.T) {
			bin := filepath.Join(t.TempDir(), "facts")
			args := append(compiler[1:], "-Wall", "-Wextra", "-Werror", "-Iinclude", "-o", bin, source)
			if out, err := exec.Command(compiler[0], args...).CombinedOutput(); err != nil {
				t.Fatalf("compile: %v\n%s", err, out)
			}
			out, err := exec.Command(bin).Output()
			if err != nil {
				t.Fatal(err)
			}
			checkCOutput(t, out)
		})
	}
}

func checkCOutput(t *testing.T, out []byte) {
	t.Helper()
	var want []string
	for _, row := range facts(t, "errors.tsv") {
		e, _ := Lookup(Code(number(t, row[0])))
		transient := 0
		if e.Transient {
			transient = 1
		}
		want = append(want, fmt.Sprintf("%s\t%s\t%s\t%d\t%d\t%s", row[0], row[1], row[2], transient, int(e.Errno), e.Summary))
	}
	want = append(want, "-99999\tQV_ERR_UNKNOWN\tunknown\t0\t5\tUnknown error")
	for _, row := range facts(t, "responses.tsv") {
		want = append(want, fmt.Sprintf("%d\t%s", number(t, row[0]), row[2]))
	}
	scan := bufio.NewScanner(bytes.NewReader(out))
	for i := 0; scan.Scan(); i++ {
		if i >= len(want) || scan.Text() != want[i] {
			t.Fatalf("line %d of the C program:\n%s\nwant\n%s", i, scan.Text(), want[min(i, len(want)-1)])
		}
		if i == len(want)-1 {
			return
		}
	}
	t.Fatalf("the C program printed fewer than %d lines", len(want))
}

// Each header can be the only one that a program includes.
func TestCHeadersAlone(t *testing.T) {
	names, err := filepath.Glob("include/quantavirt/*.h")
	if err != nil || len(names) != 6 {
		t.Fatalf("%d headers, %v", len(names), err)
	}
	for language, compiler := range compilers(t) {
		for _, name := range names {
			source := filepath.Join(t.TempDir(), "one.c")
			program := "#include <quantavirt/" + filepath.Base(name) + ">\nint main(void) { return qv_error_to_errno(QV_SUCCESS); }\n"
			if err := os.WriteFile(source, []byte(program), 0o644); err != nil {
				t.Fatal(err)
			}
			args := append(compiler[1:], "-Wall", "-Wextra", "-Werror", "-Iinclude", "-fsyntax-only", source)
			if out, err := exec.Command(compiler[0], args...).CombinedOutput(); err != nil {
				t.Errorf("%s, %s: %v\n%s", language, name, err, out)
			}
		}
	}
}
