package logs

import (
	"context"
	"errors"
	"log/slog"
	"path/filepath"
	"testing"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

func TestList(t *testing.T) {
	path := filepath.Join(t.TempDir(), "quantavirt.log")
	ring, err := qvlog.OpenRing(path, 1<<20)
	if err != nil {
		t.Fatal(err)
	}
	log := qvlog.New(nil, qvlog.Options{Level: slog.LevelDebug, Ring: ring})
	log.Info("one", qvlog.KeySubsystem, "a")
	log.Error("two", qvlog.KeySubsystem, "b")
	_ = ring.Close()
	s := Source{Path: path, Boot: func(context.Context) ([]byte, error) {
		return []byte("[2026-01-15 14:32:01 UTC] [WARN] init: three\n"), nil
	}}
	for _, c := range []struct {
		p    spec.ListLogsParams
		want []string
	}{
		{spec.ListLogsParams{}, []string{"one", "two"}},
		{spec.ListLogsParams{Level: "error"}, []string{"two"}},
		{spec.ListLogsParams{Grep: "^.*on.$"}, []string{"one"}},
		{spec.ListLogsParams{Subsystem: "a"}, []string{"one"}},
		{spec.ListLogsParams{Limit: 1}, []string{"two"}},
		{spec.ListLogsParams{Since: time.Now().Add(time.Hour)}, nil},
		{spec.ListLogsParams{Source: "boot"}, []string{"three"}},
	} {
		got, err := s.List(t.Context(), c.p)
		if err != nil || len(got.Items) != len(c.want) {
			t.Errorf("%+v: %+v, %v", c.p, got, err)
			continue
		}
		for i, w := range c.want {
			if got.Items[i].Message != w {
				t.Errorf("%+v: %+v, want %s", c.p, got, w)
			}
		}
	}
	if _, err := s.List(t.Context(), spec.ListLogsParams{Grep: "("}); !errors.Is(err, qverr.Inval) {
		t.Error(err)
	}
	if _, err := (Source{}).List(t.Context(), spec.ListLogsParams{Source: "boot"}); !errors.Is(err, qverr.Unsupported) {
		t.Error(err)
	}
}
