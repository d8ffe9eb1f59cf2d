package qvlog

import (
	"log/slog"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/qverr"
)

var when = time.Date(2026, 1, 15, 14, 32, 1, 0, time.UTC)

func TestParseText(t *testing.T) {
	for _, r := range []Record{
		{Time: when, Level: "ERROR", Subsystem: "storage", Code: qverr.StrLock, Name: "QV_STR_ERR_LOCK", Message: "disk d: is locked"},
		{Time: when, Level: "INFO", Subsystem: "init", Message: "step root start_ms=3"},
		{Time: when, Level: "WARN", Message: "no subsystem here"},
		{Time: when, Level: "DEBUG", Subsystem: "api", Message: "GET (x): y"},
	} {
		if got := ParseText(r.Text()+"\n", time.Time{}); got.Text() != r.Text() || got.Code != r.Code || got.Subsystem != r.Subsystem || got.Level != r.Level {
			t.Errorf("%q became %+v", r.Text(), got)
		}
	}
	for _, line := range []string{"", "panic: oops", "[", "[x] [INFO] y", "[2026-01-15 14:32:01 UTC] [LOUD] y", "goroutine 1 [running]:"} {
		if got := ParseText(line, when); got.Message != line || got.Level != "ERROR" || got.Time != when {
			t.Errorf("%q became %+v", line, got)
		}
	}
}

func TestReadText(t *testing.T) {
	text := Record{Time: when, Level: "INFO", Subsystem: "init", Message: "one"}.Text() + "\n\npanic: two\n" +
		Record{Time: when.Add(time.Second), Level: "WARN", Subsystem: "init", Message: "three"}.Text() + "\n"
	for _, c := range []struct {
		f    Filter
		want string
	}{
		{Filter{}, "one panic: two three"},
		{Filter{Level: slog.LevelWarn}, "panic: two three"},
		{Filter{Limit: 1}, "three"},
		{Filter{Since: when.Add(time.Second)}, "three"},
		{Filter{Subsystem: "init"}, "one three"},
	} {
		got, err := ReadText(strings.NewReader(text), c.f)
		if err != nil {
			t.Fatal(err)
		}
		var words []string
		for _, r := range got {
			words = append(words, r.Message)
		}
		if s := strings.Join(words, " "); s != c.want {
			t.Errorf("%+v: %q, want %q", c.f, s, c.want)
		}
	}
}

// Whatever is parsed is one line again.
func FuzzParseText(f *testing.F) {
	f.Add("[2026-01-15 14:32:01 UTC] [ERROR] storage: QV_STR_ERR_LOCK (-402): message")
	f.Add("[2026-01-15 14:32:01 UTC] [] : ")
	f.Fuzz(func(t *testing.T, line string) {
		r := ParseText(line, when)
		if text := r.Text(); strings.ContainsAny(text, "\n\r") {
			t.Errorf("%q became %q", line, text)
		}
	})
}
