package qverr

import (
	"fmt"
	"strconv"
	"strings"
)

// FormatLookup is the text of error-lookup for one entry.
func FormatLookup(e Entry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "%s\n", e)
	fmt.Fprintf(&b, "  Description: %s\n", e.Summary)
	fmt.Fprintf(&b, "  Subsystem:   %s\n", e.Subsystem)
	fmt.Fprintf(&b, "  Severity:    %s\n", e.Severity)
	if len(e.Causes) > 0 {
		b.WriteString("  Common Causes:\n")
		for _, c := range e.Causes {
			fmt.Fprintf(&b, "    - %s\n", c)
		}
	}
	if len(e.Recovery) > 0 {
		b.WriteString("  Recovery:\n")
		for i, r := range e.Recovery {
			fmt.Fprintf(&b, "    %d. %s\n", i+1, r)
		}
	}
	return b.String()
}

func formatResponse(e ResponseEntry) string {
	return fmt.Sprintf("%s\n  Description: %s\n  Subsystem:   %s\n  Maps to:     %s\n",
		e, e.Summary, subQUAC100, entryOf(e.Code))
}

func formatExit(e ExitEntry) string {
	var b strings.Builder
	fmt.Fprintf(&b, "Exit code %d\n  Description: %s\n", e.Exit, e.Summary)
	// Exit code 1 is what everything else ends with; a list would say nothing.
	if len(e.Codes) > 0 && e.Exit != ExitGeneral {
		b.WriteString("  Codes:\n")
		for _, c := range e.Codes {
			fmt.Fprintf(&b, "    - %s\n", entryOf(c))
		}
	}
	return b.String()
}

// Explain finds what a user may have seen and returns its error-lookup text:
// a code ("-3"), a name ("QV_ERR_NOVMX", "QUAC100_RESP_BUSY", in any case), a
// response code of the card ("0x0004") or an exit code ("12", "exit 12").
// "0" is QV_SUCCESS.
func Explain(what string) (string, error) {
	what = strings.TrimSpace(what)
	lower := strings.ToLower(what)
	if hex, ok := strings.CutPrefix(lower, "0x"); ok {
		n, err := strconv.ParseUint(hex, 16, 16)
		if err != nil {
			return "", New(Inval, "%q is not a response code of the card", what)
		}
		e, found := LookupResponse(Response(n))
		if !found {
			return "", New(NoEnt, "no response code 0x%04X", n)
		}
		return formatResponse(e), nil
	}
	if rest, ok := strings.CutPrefix(lower, "exit"); ok {
		n, err := strconv.Atoi(strings.Trim(rest, " :=-"))
		if err != nil {
			return "", New(Inval, "%q is not an exit code", what)
		}
		return explainExit(n)
	}
	if n, err := strconv.ParseInt(what, 10, 32); err == nil {
		if n > 0 {
			return explainExit(int(n))
		}
		e, found := Lookup(Code(n))
		if !found {
			return "", New(NoEnt, "no error code %d", n).WithHint("all codes: docs/errors.md")
		}
		return FormatLookup(e), nil
	}
	if e, ok := LookupName(what); ok {
		return FormatLookup(e), nil
	}
	if e, ok := lookupResponseName(what); ok {
		return formatResponse(e), nil
	}
	return "", New(NoEnt, "no error code or name %q", what).WithHint("try a number like -3 or a name like QV_ERR_NOVMX")
}

func explainExit(n int) (string, error) {
	e, err := lookupExit(n)
	if err != nil {
		return "", err
	}
	return formatExit(e), nil
}
