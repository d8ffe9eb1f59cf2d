// Package logs answers what the node has logged: from the ring on the data volume,
// and from what PID 1 keeps in memory since the boot, where also the last words of a
// daemon are that could not open the first.
package logs

import (
	"bytes"
	"context"
	"log/slog"
	"regexp"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/internal/qvlog"
)

// DefaultLimit is the number of lines if the request names none.
const DefaultLimit = 1000

// Source is where the lines are.
type Source struct {
	Path string                                    // ring on the data volume
	Boot func(ctx context.Context) ([]byte, error) // PID 1's; nil: there is no PID 1 of ours
}

// List returns the lines that a request asks for, oldest first. QV_ERR_INVAL: the
// request makes no sense. It does not wait for a data volume that hangs longer than
// ctx lasts.
func (s Source) List(ctx context.Context, p spec.ListLogsParams) (spec.LogList, error) {
	f, err := filter(p)
	if err != nil {
		return spec.LogList{}, err
	}
	if p.Source == spec.ListLogsParamsSourceBoot {
		return s.boot(ctx, f)
	}
	type result struct {
		records []qvlog.Record
		err     error
	}
	read := make(chan result, 1)
	go func() {
		records, err := qvlog.Read(s.Path, f)
		read <- result{records, err}
	}()
	select {
	case r := <-read:
		return list(r.records), r.err
	case <-ctx.Done():
		return spec.LogList{}, qverr.New(qverr.Timeout, "read the log on the data volume: %w", ctx.Err())
	}
}

func (s Source) boot(ctx context.Context, f qvlog.Filter) (spec.LogList, error) {
	if s.Boot == nil {
		return spec.LogList{}, qverr.New(qverr.Unsupported, "the log of the boot: this node runs without QuantaVirt's PID 1")
	}
	text, err := s.Boot(ctx)
	if err != nil {
		return spec.LogList{}, err
	}
	records, err := qvlog.ReadText(bytes.NewReader(text), f)
	return list(records), err
}

func list(records []qvlog.Record) spec.LogList {
	if records == nil {
		records = []qvlog.Record{}
	}
	return spec.LogList{Items: records}
}

func filter(p spec.ListLogsParams) (qvlog.Filter, error) {
	f := qvlog.Filter{Since: p.Since, Subsystem: p.Subsystem, Limit: p.Limit}
	if f.Limit == 0 {
		f.Limit = DefaultLimit
	}
	if p.Level != "" {
		level, err := qvlog.ParseLevel(string(p.Level))
		if err != nil {
			return f, err
		}
		f.Level = slog.Leveler(level)
	}
	if p.Grep != "" {
		re, err := regexp.Compile(p.Grep)
		if err != nil {
			return f, qverr.New(qverr.Inval, "%w", err).With("parameter", "grep")
		}
		f.Grep = re
	}
	return f, nil
}
