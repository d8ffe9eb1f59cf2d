package qvlog

import (
	"fmt"
	"io"
	"strconv"
	"strings"
	"time"

	"quantavirt/internal/qverr"
)

// ParseText is the record of a line that Text has made, its attributes left in
// the message. What is no such line, as the trace of a panic, is the message of a
// record of level ERROR and of the time given.
func ParseText(line string, at time.Time) Record {
	line = strings.TrimRight(line, "\r\n")
	rest, ok := strings.CutPrefix(line, "[")
	stamp, rest, ok2 := strings.Cut(rest, "] [")
	level, rest, ok3 := strings.Cut(rest, "] ")
	t, err := time.Parse(timeForm, stamp)
	if _, levelErr := ParseLevel(level); !ok || !ok2 || !ok3 || err != nil || levelErr != nil {
		return Record{Time: at, Level: "ERROR", Message: line}
	}
	r := Record{Time: t.UTC(), Level: strings.ToUpper(level), Message: rest}
	if s, after, ok := strings.Cut(r.Message, ": "); ok && isWord(s) {
		r.Subsystem, r.Message = s, after
	}
	if name, after, ok := strings.Cut(r.Message, " ("); ok && isName(name) {
		number, after, ok := strings.Cut(after, "): ")
		code, err := strconv.ParseInt(number, 10, 32)
		if ok && err == nil {
			r.Name, r.Code, r.Message = name, qverr.Code(code), after
		}
	}
	return r
}

func isWord(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'a' || c > 'z') && (c < '0' || c > '9') && c != '-' && c != '.'
	})
}

func isName(s string) bool {
	return s != "" && !strings.ContainsFunc(s, func(c rune) bool {
		return (c < 'A' || c > 'Z') && (c < '0' || c > '9') && c != '_'
	})
}

// ReadText returns the matching records of lines that Text has made, oldest
// first.
func ReadText(r io.Reader, f Filter) ([]Record, error) {
	data, err := io.ReadAll(r)
	if err != nil {
		return nil, fmt.Errorf("read log lines: %w", err)
	}
	var out []Record
	var last time.Time
	for line := range strings.Lines(string(data)) {
		rec := ParseText(line, last)
		last = rec.Time
		if rec.Message != "" && f.match(rec) {
			out = append(out, rec)
		}
	}
	if f.Limit > 0 && len(out) > f.Limit {
		out = out[len(out)-f.Limit:]
	}
	return out, nil
}
