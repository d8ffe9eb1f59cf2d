package qvlog

import (
	"bytes"
	"encoding/json"
	"errors"
	"log/slog"
	"strings"
	"testing"
	"time"

	"quantavirt/internal/qverr"
)

// at is a record handler's clock: the log package takes the time from slog, so
// tests rewrite it in the output.
func logLine(t *testing.T, opts Options, emit func(*slog.Logger)) string {
	t.Helper()
	var b bytes.Buffer
	emit(New(&b, opts))
	return b.String()
}

func withoutTime(t *testing.T, line string) string {
	t.Helper()
	stamp, rest, ok := strings.Cut(line, "] ")
	if !ok {
		t.Fatalf("no time in %q", line)
	}
	if _, err := time.Parse("["+timeForm, stamp); err != nil {
		t.Errorf("time: %v", err)
	}
	return rest
}

func TestTextLine(t *testing.T) {
	lock := qverr.New(qverr.StrLock, "/d/web.img locked by VM 'web-prod' (pid 4821)")
	for _, c := range []struct {
		name string
		emit func(*slog.Logger)
		want string
	}{
		{"plain", func(l *slog.Logger) { l.Info("up") }, "[INFO] up\n"},
		{"subsystem", func(l *slog.Logger) { l.With("subsystem", "pqc").Warn("pool low", "bytes", 12) }, "[WARN] pqc: pool low bytes=12\n"},
		{"error", func(l *slog.Logger) { l.Error("", "subsystem", "storage", "err", lock) },
			"[ERROR] storage: QV_STR_ERR_LOCK (-402): /d/web.img locked by VM 'web-prod' (pid 4821)\n"},
		{"error and message", func(l *slog.Logger) {
			l.Error("VM 'web' start failed", "subsystem", "vm", "err", qverr.New(qverr.VMStart, "disk locked: %w", lock))
		}, "[ERROR] vm: QV_ERR_VM_START (-22): VM 'web' start failed: disk locked: /d/web.img locked by VM 'web-prod' (pid 4821)\n"},
		{"foreign error", func(l *slog.Logger) { l.Error("x", "err", errors.New("boom")) }, "[ERROR] QV_ERR_GENERIC (-1): x: boom\n"},
		{"bare code", func(l *slog.Logger) { l.Error("boot", "err", qverr.NoIOMMU) }, "[ERROR] QV_ERR_NOIOMMU (-4): boot: No IOMMU is active on this host\n"},
		{"nil error", func(l *slog.Logger) { l.Info("x", "err", nil) }, "[INFO] x\n"},
		{"groups", func(l *slog.Logger) {
			l.WithGroup("disk").With("id", 1).WithGroup("q").Info("x", "subsystem", "storage", "n", 2, slog.Group("g", "a", "b c"))
		}, "[INFO] storage: x disk.id=1 disk.q.g.a=\"b c\" disk.q.n=2\n"},
		{"one line", func(l *slog.Logger) { l.Info("a\nb\x1b[31m", "k", "v\r\n") }, "[INFO] a\\nb\\x1b[31m k=v\\r\\n\n"},
		{"kinds", func(l *slog.Logger) {
			l.Info("x", "d", 1500*time.Millisecond, "e", qverr.NoEnt, "l", []int{1, 2}, "b", true)
		}, "[INFO] x b=true d=1.5s e=\"QV_ERR_NOENT (-6): The named resource does not exist\" l=[1,2]\n"},
		{"level", func(l *slog.Logger) { l.Debug("hidden") }, ""},
	} {
		t.Run(c.name, func(t *testing.T) {
			got := logLine(t, Options{}, c.emit)
			if got != "" {
				got = withoutTime(t, got)
			}
			if got != c.want {
				t.Errorf("got  %qwant %q", got, c.want)
			}
		})
	}
}

func TestJSONLine(t *testing.T) {
	line := logLine(t, Options{JSON: true, Level: slog.LevelDebug}, func(l *slog.Logger) {
		l.Debug("m", "subsystem", "vm", "err", qverr.New(qverr.NoEnt, "gone"), "vm", "web")
	})
	var r Record
	if err := json.Unmarshal([]byte(line), &r); err != nil {
		t.Fatal(err)
	}
	if r.Level != "DEBUG" || r.Subsystem != "vm" || r.Code != qverr.NoEnt || r.Name != "QV_ERR_NOENT" ||
		r.Message != "m: gone" || r.Attrs["vm"] != "web" || time.Since(r.Time) > time.Hour {
		t.Errorf("%+v", r)
	}
	if strings.Count(line, "\n") != 1 {
		t.Errorf("%q", line)
	}
}

func TestParseLevel(t *testing.T) {
	for in, want := range map[string]slog.Level{"ERROR": slog.LevelError, " warning": slog.LevelWarn, "info": slog.LevelInfo, "Debug": slog.LevelDebug} {
		if got, err := ParseLevel(in); err != nil || got != want {
			t.Errorf("%q: %v, %v", in, got, err)
		}
	}
	if _, err := ParseLevel("loud"); !errors.Is(err, qverr.Inval) {
		t.Errorf("loud: %v", err)
	}
}
