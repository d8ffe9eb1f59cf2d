package schema

import (
	"encoding/json"
	"maps"
	"net/url"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

// CheckQuery holds a query against the parameters of the operation with this
// pattern, "GET /path" with {names} as in the description.
func (s *Set) CheckQuery(pattern string, query url.Values) error {
	known := s.parameters(pattern)
	for _, name := range slices.Sorted(maps.Keys(query)) {
		p := known[name]
		if p == nil {
			return badQuery(name, "there is no query parameter %.64q here", name)
		}
		values := query[name]
		if len(values) != 1 {
			return badQuery(name, "query parameter %s is given %d times", name, len(values))
		}
		if err := s.checkParameter(p, values[0]); err != nil {
			return err
		}
	}
	for _, name := range slices.Sorted(maps.Keys(known)) {
		if known[name].Required && !query.Has(name) {
			return badQuery(name, "query parameter %s is missing", name)
		}
	}
	return nil
}

func badQuery(name, format string, args ...any) error {
	return qverr.New(qverr.Inval, format, args...).With("parameter", name)
}

func (s *Set) checkParameter(p *parameter, value string) error {
	n := s.resolve(p.Schema)
	var v any = value
	var err error
	switch n.Type {
	case "integer":
		var i int64
		i, err = strconv.ParseInt(value, 10, 64)
		v = float64(i)
	case "boolean":
		var b bool
		b, err = strconv.ParseBool(value)
		v = b
	}
	if err != nil {
		return badQuery(p.Name, "query parameter %s=%.64q is not %s", p.Name, value, article[n.Type])
	}
	if err := s.check(n, v, p.Name); err != nil {
		return badQuery(p.Name, "query parameter %w", err)
	}
	return nil
}

func (s *Set) parameters(pattern string) map[string]*parameter {
	s.mu.Lock()
	defer s.mu.Unlock()
	if known, ok := s.query[pattern]; ok {
		return known
	}
	method, path, _ := strings.Cut(pattern, " ")
	known := make(map[string]*parameter)
	s.collect(known, s.doc.Paths[path]["parameters"])
	var operation struct {
		Parameters json.RawMessage `json:"parameters"`
	}
	if raw := s.doc.Paths[path][strings.ToLower(method)]; raw != nil && json.Unmarshal(raw, &operation) == nil {
		s.collect(known, operation.Parameters)
	}
	s.query[pattern] = known
	return known
}

func (s *Set) collect(into map[string]*parameter, raw json.RawMessage) {
	var list []*parameter
	if raw == nil || json.Unmarshal(raw, &list) != nil {
		return
	}
	for _, p := range list {
		if p.Ref != "" {
			p = s.doc.Components.Parameters[strings.TrimPrefix(p.Ref, refPrefix+"parameters/")]
		}
		if p != nil && p.In == "query" {
			into[p.Name] = p
		}
	}
}

// Operations lists the patterns of all operations, "GET /path", in order.
func (s *Set) Operations() []string {
	var out []string
	for path, item := range s.doc.Paths {
		for method := range item {
			if method != "parameters" {
				out = append(out, strings.ToUpper(method)+" "+path)
			}
		}
	}
	slices.Sort(out)
	return out
}
