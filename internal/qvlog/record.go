package qvlog

import (
	"encoding/json"
	"fmt"
	"log/slog"
	"sort"
	"strconv"
	"strings"
	"time"
	"unicode"

	"quantavirt/internal/qverr"
)

// Record is one event as it is kept and shown.
type Record struct {
	Time      time.Time      `json:"time"`
	Level     string         `json:"level"` // DEBUG, INFO, WARN or ERROR
	Subsystem string         `json:"subsystem,omitempty"`
	Code      qverr.Code     `json:"code,omitempty"` // 0 without an error
	Name      string         `json:"name,omitempty"`
	Message   string         `json:"message"`
	Attrs     map[string]any `json:"attrs,omitempty"`
}

const timeForm = "2006-01-02 15:04:05 UTC"

// Text is the line of the record, without a line end. Control characters are
// escaped, so that an event never becomes two lines.
func (r Record) Text() string {
	var b strings.Builder
	fmt.Fprintf(&b, "[%s] [%s] ", r.Time.UTC().Format(timeForm), r.Level)
	if r.Subsystem != "" {
		b.WriteString(escape(r.Subsystem) + ": ")
	}
	if r.Name != "" {
		fmt.Fprintf(&b, "%s (%d): ", escape(r.Name), int(r.Code))
	}
	b.WriteString(escape(r.Message))
	keys := make([]string, 0, len(r.Attrs))
	for k := range r.Attrs {
		keys = append(keys, k)
	}
	sort.Strings(keys)
	for _, k := range keys {
		b.WriteString(" " + escape(k) + "=" + attrText(r.Attrs[k]))
	}
	return b.String()
}

func attrText(v any) string {
	s, ok := v.(string)
	if !ok {
		raw, err := json.Marshal(v)
		if err != nil {
			raw = []byte(fmt.Sprint(v))
		}
		return escape(string(raw))
	}
	if s == "" || strings.ContainsAny(s, " \"=") {
		return strconv.Quote(s)
	}
	return escape(s)
}

// escape makes control characters visible.
func escape(s string) string {
	if strings.IndexFunc(s, unicode.IsControl) < 0 {
		return s
	}
	var b strings.Builder
	for _, c := range s {
		if unicode.IsControl(c) {
			q := strconv.QuoteRune(c)
			b.WriteString(q[1 : len(q)-1])
			continue
		}
		b.WriteRune(c)
	}
	return b.String()
}

// ParseLevel reads a level as users write it: debug, info, warn, warning or
// error, in any case.
func ParseLevel(s string) (slog.Level, error) {
	switch strings.ToLower(strings.TrimSpace(s)) {
	case "debug":
		return slog.LevelDebug, nil
	case "info":
		return slog.LevelInfo, nil
	case "warn", "warning":
		return slog.LevelWarn, nil
	case "error":
		return slog.LevelError, nil
	}
	return 0, qverr.New(qverr.Inval, "log level %q is none of debug, info, warn, error", s)
}

func levelName(l slog.Level) string {
	switch {
	case l >= slog.LevelError:
		return "ERROR"
	case l >= slog.LevelWarn:
		return "WARN"
	case l >= slog.LevelInfo:
		return "INFO"
	}
	return "DEBUG"
}
