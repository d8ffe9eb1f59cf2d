package qverr

import (
	"os"
	"regexp"
	"strings"
	"testing"
)

// The document of the reference is a text whose table columns ran together:
// "-1QV_ERR_GENERICUnspecified internal error…".
const referencePath = "../../../shared/spec/error-code-reference.txt"

func reference(t *testing.T) []string {
	t.Helper()
	data, err := os.ReadFile(referencePath)
	if err != nil {
		t.Skipf("the reference document is not at hand: %v", err)
	}
	return strings.Split(string(data), "\n")
}

func TestAgainstReferenceCodes(t *testing.T) {
	row := regexp.MustCompile(`^(-?\d+)((?:QV_|PQC_|QUAC100_)[A-Z0-9_]+)`)
	seen := make(map[Code]bool)
	for _, line := range reference(t) {
		m := row.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		code := Code(number(t, m[1]))
		e, ok := Lookup(code)
		// The name runs into the description: "QV_ERR_CPUIDCPUID emulation error".
		if !ok || !strings.HasPrefix(m[2], e.Name) {
			t.Errorf("%s: the table has %v, %v", line, e, ok)
		}
		seen[code] = true
	}
	if len(seen) != len(All()) {
		t.Errorf("the reference has %d codes, the table %d", len(seen), len(All()))
	}
}

func TestAgainstReferenceMappings(t *testing.T) {
	mapped := regexp.MustCompile(`^(0x[0-9A-F]{4})(QUAC100_RESP_[A-Z_]+).*?((?:QV|PQC|QUAC100)_[A-Z0-9_]+) \((-?\d+)\)$`)
	errno := regexp.MustCompile(`^(\d+)(E[A-Z]+?)(QV_ERR_[A-Z]+) \((-\d+)\)$`)
	responses, errnos := 0, 0
	for _, line := range reference(t) {
		if m := mapped.FindStringSubmatch(line); m != nil {
			responses++
			e, ok := LookupResponse(Response(number(t, m[1])))
			if !ok || !strings.HasPrefix(m[2], e.Name) || e.Code != Code(number(t, m[4])) {
				t.Errorf("%s: the table has %v → %v", line, e, e.Code)
			}
		}
		if m := errno.FindStringSubmatch(line); m != nil {
			errnos++
			code := Code(number(t, m[4]))
			for _, r := range ErrnoRows() {
				if int(r.Errno) == number(t, m[1]) && (r.Name != m[2] || r.Code != code || !r.Fixed) {
					t.Errorf("%s: the table has %+v", line, r)
				}
			}
		}
	}
	if responses != len(Responses()) || errnos != len(facts(t, "errno.tsv")) {
		t.Errorf("found %d responses and %d errnos in the reference", responses, errnos)
	}
}

// section returns the lines between two headings.
func section(lines []string, from, to string) []string {
	var out []string
	on := false
	for _, line := range lines {
		switch {
		case strings.HasPrefix(line, from):
			on = true
		case strings.HasPrefix(line, to):
			on = false
		case on:
			out = append(out, line)
		}
	}
	return out
}

func TestAgainstReferenceStatusesAndExits(t *testing.T) {
	lines := reference(t)
	numbered := regexp.MustCompile(`^(\d+)[A-Z]`)
	statuses := 0
	for _, line := range section(lines, "REST API Error Responses", "CLI Exit Codes") {
		m := numbered.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		statuses++
		status := number(t, m[1])
		for _, e := range All() {
			if !strings.Contains(line, e.Name) || e.Code == Config && status == 400 {
				continue
			}
			if e.HTTPStatus != status {
				t.Errorf("%s is %d, the reference says %d", e.Name, e.HTTPStatus, status)
			}
		}
	}
	if statuses != len(HTTPStatuses()) {
		t.Errorf("the reference lists %d statuses, we %d", statuses, len(HTTPStatuses()))
	}
	exits := 0
	for _, line := range section(lines, "CLI Exit Codes", "Linux errno Mapping") {
		m := numbered.FindStringSubmatch(line)
		if m == nil {
			continue
		}
		exits++
		exit := number(t, m[1])
		for _, e := range All() {
			named := regexp.MustCompile(`(^|[ a-z])`+e.Name+`($|,)`).MatchString(line) ||
				strings.Contains(line, "PQC_ERR_*") && strings.HasPrefix(e.Name, "PQC_ERR_") ||
				strings.Contains(line, "QV_MIG_ERR_*") && strings.HasPrefix(e.Name, "QV_MIG_ERR_")
			if named && e.ExitCode != exit {
				t.Errorf("%s ends with %d, the reference says %d", e.Name, e.ExitCode, exit)
			}
		}
	}
	if exits != len(Exits()) {
		t.Errorf("the reference lists %d exit codes, we %d", exits, len(Exits()))
	}
}
