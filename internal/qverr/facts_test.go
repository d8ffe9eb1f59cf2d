package qverr

import (
	"encoding/json"
	"errors"
	"os"
	"path/filepath"
	"regexp"
	"strconv"
	"strings"
	"syscall"
	"testing"
)

// facts reads a table of testdata: the numbers and names of the reference.
func facts(t *testing.T, name string) [][]string {
	t.Helper()
	data, err := os.ReadFile(filepath.Join("testdata", name))
	if err != nil {
		t.Fatal(err)
	}
	var rows [][]string
	for _, line := range strings.Split(strings.TrimSpace(string(data)), "\n") {
		if !strings.HasPrefix(line, "#") {
			rows = append(rows, strings.Split(line, "\t"))
		}
	}
	return rows
}

func number(t *testing.T, s string) int {
	t.Helper()
	n, err := strconv.ParseInt(s, 0, 32)
	if err != nil {
		t.Fatal(err)
	}
	return int(n)
}

// lookupForm is what error-lookup prints for an entry that has causes.
var lookupForm = regexp.MustCompile(`^([A-Z0-9_]+) \((-?\d+)\)
  Description: (.+)
  Subsystem:   ([a-z0-9]+)
  Severity:    (info|warning|error|fatal)
(?:  Common Causes:
(?:    - .+
)+  Recovery:
    1\. .+
(?:    \d\. .+
)*)?$`)

func TestCatalogueHoldsTheReference(t *testing.T) {
	rows := facts(t, "errors.tsv")
	if got := len(All()); got != len(rows) {
		t.Errorf("table has %d rows, the reference %d", got, len(rows))
	}
	summaries := make(map[string]string)
	for i, row := range rows {
		code, name, subsystem := Code(number(t, row[0])), row[1], row[2]
		e, ok := Lookup(code)
		if !ok {
			t.Errorf("%s (%d) is missing", name, code)
			continue
		}
		if e.Name != name || e.Subsystem != subsystem || e.Code != code {
			t.Errorf("row %d is %s in %s, want %s in %s", code, e.Name, e.Subsystem, name, subsystem)
		}
		if All()[i].Code != code {
			t.Errorf("row %d is not at place %d", code, i)
		}
		if byName, ok := LookupName(strings.ToLower(name)); !ok || byName.Code != code {
			t.Errorf("LookupName(%q) = %v, %v", strings.ToLower(name), byName, ok)
		}
		if other, twice := summaries[e.Summary]; twice || e.Summary == "" {
			t.Errorf("%s: summary %q is empty or also that of %s", name, e.Summary, other)
		}
		summaries[e.Summary] = name
		checkLookupText(t, e, row[0])
		checkBody(t, e)
	}
}

func checkLookupText(t *testing.T, e Entry, number string) {
	t.Helper()
	for _, what := range []string{number, e.Name, " " + strings.ToLower(e.Name)} {
		got, err := Explain(what)
		if err != nil {
			t.Errorf("Explain(%q): %v", what, err)
			continue
		}
		m := lookupForm.FindStringSubmatch(got)
		if m == nil {
			t.Errorf("Explain(%q) has another form than the reference:\n%s", what, got)
			continue
		}
		if m[1] != e.Name || m[2] != number || m[3] != e.Summary || m[4] != e.Subsystem || m[5] != string(e.Severity) {
			t.Errorf("Explain(%q) says %q", what, m[1:])
		}
	}
	if e.Code != Success && (len(e.Causes) == 0 || len(e.Recovery) == 0) {
		t.Errorf("%s has no causes or no recovery", e.Name)
	}
}

func checkBody(t *testing.T, e Entry) {
	t.Helper()
	raw, err := json.Marshal(NewBody(New(e.Code, "what happened"), "req-1"))
	if err != nil {
		t.Fatal(err)
	}
	var got struct {
		Error map[string]any `json:"error"`
	}
	if err := json.Unmarshal(raw, &got); err != nil {
		t.Fatal(err)
	}
	want := map[string]any{
		"code": float64(e.Code), "name": e.Name, "message": e.Summary, "detail": "what happened",
		"subsystem": e.Subsystem, "request_id": "req-1", "transient": e.Transient,
	}
	for key, v := range want {
		if got.Error[key] != v {
			t.Errorf("%s: body has %s = %v, want %v", e.Name, key, got.Error[key], v)
		}
	}
	if len(got.Error) != len(want) {
		t.Errorf("%s: body has other members: %s", e.Name, raw)
	}
}

func TestHTTPStatuses(t *testing.T) {
	closed := make(map[int]bool)
	for _, h := range HTTPStatuses() {
		closed[h.Status] = true
	}
	for _, row := range facts(t, "http.tsv") {
		code, want := Code(number(t, row[0])), number(t, row[1])
		if got := HTTPStatus(New(code, "x")); got != want {
			t.Errorf("%v: status %d, want %d", code, got, want)
		}
		if code != Success && !closed[want] {
			t.Errorf("status %d is not of the closed set", want)
		}
	}
	if got := HTTPStatus(Malformed("bad JSON at offset 3")); got != 400 {
		t.Errorf("malformed document: status %d", got)
	}
	if got := HTTPStatus(New(Config, "x").With("path", "cpu.count")); got != 422 {
		t.Errorf("schema violation: status %d", got)
	}
	if got := HTTPStatus(nil); got != 200 {
		t.Errorf("nil: status %d", got)
	}
}

func TestExitCodes(t *testing.T) {
	for _, row := range facts(t, "exit.tsv") {
		code, want := Code(number(t, row[0])), number(t, row[1])
		if got := ExitCode(New(code, "x")); got != want {
			t.Errorf("%v: exit %d, want %d", code, got, want)
		}
	}
	if got := ExitCode(New(IO, "dial: %w", ErrUnreachable)); got != 12 {
		t.Errorf("unreachable: exit %d, want 12", got)
	}
	if got := ExitCode(nil); got != 0 {
		t.Errorf("nil: exit %d", got)
	}
}

func TestTransient(t *testing.T) {
	want := make(map[Code]bool)
	for _, row := range facts(t, "transient.tsv") {
		want[Code(number(t, row[0]))] = true
	}
	for _, e := range All() {
		if e.Transient != want[e.Code] || IsTransient(New(e.Code, "x")) != want[e.Code] {
			t.Errorf("%s: transient %v, want %v", e.Name, e.Transient, want[e.Code])
		}
	}
	final := New(Busy, "x")
	final.NotTransient = true
	if IsTransient(final) || NewPayload(final, "").Transient {
		t.Error("NotTransient is ignored")
	}
}

func TestErrnos(t *testing.T) {
	fixed := make(map[syscall.Errno]bool)
	for _, row := range facts(t, "errno.tsv") {
		errno, code := syscall.Errno(number(t, row[0])), Code(number(t, row[2]))
		fixed[errno] = true
		if got := FromErrno(errno); got != code {
			t.Errorf("%s: code %v, want %v", row[1], got, code)
		}
		if ErrnoName(errno) != row[1] {
			t.Errorf("errno %d is called %s, want %s", errno, ErrnoName(errno), row[1])
		}
		if back := FromErrno(ToErrno(code)); back != code {
			t.Errorf("%v → %s → %v", code, ErrnoName(ToErrno(code)), back)
		}
		if got := CodeOf(&os.PathError{Op: "open", Path: "/x", Err: errno}); got != code {
			t.Errorf("PathError with %s: code %v", row[1], got)
		}
	}
	last := syscall.Errno(0)
	for _, r := range ErrnoRows() {
		if r.Errno <= last || r.Fixed != fixed[r.Errno] {
			t.Errorf("%s: out of order or its mark is wrong", r.Name)
		}
		last = r.Errno
		if _, ok := Lookup(r.Code); !ok {
			t.Errorf("%s maps to %v, which is no code", r.Name, r.Code)
		}
	}
	for _, e := range All() {
		if e.Code != Success && (e.Errno == 0 || ErrnoName(e.Errno) == "") {
			t.Errorf("%s has errno %d without a name", e.Name, e.Errno)
		}
	}
	if FromErrno(0) != Success || ToErrno(Success) != 0 || FromErrno(4095) != Generic {
		t.Error("0 or an unknown errno")
	}
}

func TestResponses(t *testing.T) {
	rows := facts(t, "responses.tsv")
	if got := len(Responses()); got != len(rows) {
		t.Errorf("%d responses, want %d", got, len(rows))
	}
	for _, row := range rows {
		r, code := Response(number(t, row[0])), Code(number(t, row[2]))
		e, ok := LookupResponse(r)
		if !ok || e.Name != row[1] || e.Code != code || FromResponse(r) != code {
			t.Errorf("response %s: %+v, want %s %v", row[0], e, row[1], code)
		}
		byNumber, err1 := Explain(row[0])
		byName, err2 := Explain(strings.ToLower(row[1]))
		if err := errors.Join(err1, err2); err != nil || byNumber != byName || !strings.Contains(byName, "("+row[2]+")") {
			t.Errorf("Explain(%s) = %v\n%s%s", row[0], err, byNumber, byName)
		}
	}
	if FromResponse(0x1234) != Generic {
		t.Error("unknown response")
	}
}
