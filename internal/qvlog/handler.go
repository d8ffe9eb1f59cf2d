package qvlog

import (
	"context"
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quantavirt/internal/qverr"
)

// Keys of the attributes with a meaning.
const (
	KeySubsystem = "subsystem"
	KeyErr       = "err"
)

// Options of New. The zero value logs INFO and above as text.
type Options struct {
	Level slog.Leveler // lowest level, nil means INFO
	JSON  bool         // write JSON lines to the writer instead of text
	Ring  *Ring        // also keeps every event; may be nil
}

// New returns a logger that writes to w, which may be nil when only the ring
// is wanted. Every event is one Write.
func New(w io.Writer, opts Options) *slog.Logger {
	if opts.Level == nil {
		opts.Level = slog.LevelInfo
	}
	return slog.New(&handler{out: &output{w: w, json: opts.JSON, ring: opts.Ring}, level: opts.Level})
}

// output is shared by all handlers that descend from one New.
type output struct {
	mu   sync.Mutex
	w    io.Writer
	json bool
	ring *Ring
}

type handler struct {
	out    *output
	level  slog.Leveler
	attrs  []slog.Attr // already under their groups
	groups []string
}

func (h *handler) Enabled(_ context.Context, l slog.Level) bool { return l >= h.level.Level() }

func (h *handler) WithAttrs(attrs []slog.Attr) slog.Handler {
	c := *h
	c.attrs = slices.Clip(c.attrs)
	for _, a := range attrs {
		c.attrs = append(c.attrs, h.prefixed(a))
	}
	return &c
}

func (h *handler) WithGroup(name string) slog.Handler {
	if name == "" {
		return h
	}
	c := *h
	c.groups = append(slices.Clip(c.groups), name)
	return &c
}

// prefixed names an attribute by its groups: "disk.path". The two keys with a
// meaning keep it in any group.
func (h *handler) prefixed(a slog.Attr) slog.Attr {
	if a.Key == KeySubsystem || a.Key == KeyErr {
		return a
	}
	for i := len(h.groups) - 1; i >= 0; i-- {
		a.Key = h.groups[i] + "." + a.Key
	}
	return a
}

func (h *handler) Handle(_ context.Context, sr slog.Record) error {
	r := Record{Time: sr.Time.UTC(), Level: levelName(sr.Level), Message: sr.Message}
	if r.Time.IsZero() {
		r.Time = time.Now().UTC()
	}
	for _, a := range h.attrs {
		r.add(a)
	}
	sr.Attrs(func(a slog.Attr) bool {
		r.add(h.prefixed(a))
		return true
	})
	return h.out.write(r, sr.Level)
}

func (r *Record) add(a slog.Attr) {
	v := a.Value.Resolve()
	if a.Equal(slog.Attr{}) {
		return
	}
	switch {
	case v.Kind() == slog.KindGroup:
		for _, member := range v.Group() {
			if a.Key != "" {
				member.Key = a.Key + "." + member.Key
			}
			r.add(member)
		}
		return
	case a.Key == KeySubsystem:
		r.Subsystem = v.String()
		return
	case a.Key == KeyErr:
		if err, ok := v.Any().(error); ok && err != nil {
			r.setError(err)
			return
		}
		if v.Any() == nil {
			return
		}
	}
	if r.Attrs == nil {
		r.Attrs = make(map[string]any)
	}
	r.Attrs[a.Key] = plain(v)
}

func (r *Record) setError(err error) {
	r.Code = qverr.CodeOf(err)
	r.Name = "QV_ERR_UNKNOWN"
	if e, ok := qverr.Lookup(r.Code); ok {
		r.Name = e.Name
	}
	text := err.Error()
	// A bare code says its own name, which the line has already.
	if code, ok := err.(qverr.Code); ok {
		e, _ := qverr.Lookup(code)
		text = e.Summary
	}
	if r.Message == "" {
		r.Message = text
	} else if text != "" {
		r.Message += ": " + text
	}
}

// plain turns a value into one that JSON and text show alike.
func plain(v slog.Value) any {
	switch v.Kind() {
	case slog.KindDuration:
		return v.Duration().String()
	case slog.KindTime:
		return v.Time().UTC().Format(time.RFC3339Nano)
	case slog.KindAny:
		switch x := v.Any().(type) {
		case error:
			return x.Error()
		case fmt.Stringer:
			return x.String()
		case []byte:
			return string(x)
		}
		if _, err := json.Marshal(v.Any()); err != nil {
			return fmt.Sprint(v.Any())
		}
	}
	return v.Any()
}

func (o *output) write(r Record, level slog.Level) error {
	line, err := json.Marshal(r)
	if err != nil {
		return fmt.Errorf("encode log record: %w", err)
	}
	line = append(line, '\n')
	o.mu.Lock()
	defer o.mu.Unlock()
	var errs []error
	if o.w != nil {
		out := line
		if !o.json {
			out = []byte(r.Text() + "\n")
		}
		if _, err := o.w.Write(out); err != nil {
			errs = append(errs, err)
		}
	}
	if o.ring != nil {
		_, err := o.ring.Write(line)
		errs = append(errs, err)
		// What explains a failure must survive the power cut that follows it.
		if level >= slog.LevelError {
			errs = append(errs, o.ring.Sync())
		}
	}
	return errors.Join(errs...)
}
