package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"os"
	"strconv"
	"strings"
	"text/tabwriter"
	"time"
	"unicode"

	"golang.org/x/term"

	"quantavirt/internal/qverr"
)

func (a *app) checkOutput() error {
	switch a.output {
	case "table", "json", "yaml":
		return nil
	}
	return qverr.New(qverr.Inval, "output %q is none of table, json, yaml", a.output)
}

// show prints a value of our own: as table prints it, or as JSON or YAML.
func (a *app) show(v any, table func(io.Writer)) error {
	raw, err := json.Marshal(v)
	if err != nil {
		return qverr.New(qverr.Generic, "encode the output: %w", err)
	}
	return a.print(raw, table)
}

// print writes an answer, whose JSON is raw, in the form that was asked for.
func (a *app) print(raw []byte, table func(io.Writer)) error {
	var b bytes.Buffer
	switch a.output {
	case "json":
		if err := json.Indent(&b, raw, "", "  "); err != nil {
			return qverr.New(qverr.Generic, "the answer is not JSON: %w", err)
		}
		trimmed := bytes.TrimRight(b.Bytes(), "\n")
		b.Truncate(len(trimmed))
		b.WriteByte('\n')
	case "yaml":
		if err := writeYAML(&b, raw); err != nil {
			return qverr.New(qverr.Generic, "the answer is not JSON: %w", err)
		}
	default:
		w := tabwriter.NewWriter(&b, 0, 8, 2, ' ', 0)
		table(w)
		w.Flush()
	}
	if _, err := a.Out.Write(b.Bytes()); err != nil {
		return qverr.New(qverr.IO, "write the output: %w", err)
	}
	return nil
}

// row writes cells of a table. Cells of other people's making (guest host
// names, descriptions) must not steer the terminal.
func row(w io.Writer, cells ...any) {
	for i, c := range cells {
		if i > 0 {
			io.WriteString(w, "\t")
		}
		s := plain(fmt.Sprint(c))
		if s == "" {
			s = "-"
		}
		io.WriteString(w, s)
	}
	io.WriteString(w, "\n")
}

func plain(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// size is a number of bytes for people.
func size(n int64) string {
	const units = "KMGTPE"
	if n < 1024 {
		return strconv.FormatInt(n, 10) + " B"
	}
	v, unit := float64(n), -1
	for v >= 1024 && unit < len(units)-1 {
		v, unit = v/1024, unit+1
	}
	form := "%.1f %ciB"
	if v >= 100 || v == float64(int64(v)) {
		form = "%.0f %ciB"
	}
	return fmt.Sprintf(form, v, units[unit])
}

func when(t time.Time) string {
	if t.IsZero() {
		return ""
	}
	return t.UTC().Format("2006-01-02 15:04:05")
}

func whenPtr(t *time.Time) string {
	if t == nil {
		return ""
	}
	return when(*t)
}

func yes(b bool) string {
	if b {
		return "yes"
	}
	return "no"
}

func seconds(s float64) string {
	return time.Duration(s * float64(time.Second)).Round(time.Second).String()
}

// terminal says whether w is one that a person looks at.
func terminal(w any) bool {
	f, ok := w.(*os.File)
	return ok && term.IsTerminal(int(f.Fd()))
}
