package schema

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"regexp"
	"slices"
	"strconv"
	"strings"
	"sync"
	"unicode/utf8"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

const refPrefix = "#/components/"

// node is one schema.
type node struct {
	Ref        string           `json:"$ref"`
	Type       string           `json:"type"`
	Format     string           `json:"format"`
	Required   []string         `json:"required"`
	Properties map[string]*node `json:"properties"`
	Additional json.RawMessage  `json:"additionalProperties"`
	Items      *node            `json:"items"`
	Enum       []any            `json:"enum"`
	Pattern    string           `json:"pattern"`
	MinLength  *int             `json:"minLength"`
	MaxLength  *int             `json:"maxLength"`
	Minimum    *float64         `json:"minimum"`
	Maximum    *float64         `json:"maximum"`
	MinItems   *int             `json:"minItems"`
	MaxItems   *int             `json:"maxItems"`
	OneOf      []*node          `json:"oneOf"`

	re *regexp.Regexp
}

type parameter struct {
	Ref      string `json:"$ref"`
	Name     string `json:"name"`
	In       string `json:"in"`
	Required bool   `json:"required"`
	Schema   *node  `json:"schema"`
}

type document struct {
	Paths      map[string]map[string]json.RawMessage `json:"paths"`
	Components struct {
		Schemas    map[string]*node      `json:"schemas"`
		Parameters map[string]*parameter `json:"parameters"`
	} `json:"components"`
}

// Set is a parsed description.
type Set struct {
	doc document

	mu    sync.Mutex
	query map[string]map[string]*parameter // by pattern "GET /path"
}

// Load parses a description in JSON.
func Load(data []byte) (*Set, error) {
	s := &Set{query: make(map[string]map[string]*parameter)}
	if err := json.Unmarshal(data, &s.doc); err != nil {
		return nil, fmt.Errorf("API description: %w", err)
	}
	return s, nil
}

func (s *Set) resolve(n *node) *node {
	for n.Ref != "" {
		next := s.doc.Components.Schemas[strings.TrimPrefix(n.Ref, refPrefix+"schemas/")]
		if next == nil {
			return &node{}
		}
		n = next
	}
	return n
}

// Check holds v, as encoding/json decodes into an any, against a named schema.
func (s *Set) Check(name string, v any) error {
	n := s.doc.Components.Schemas[name]
	if n == nil {
		return qverr.New(qverr.Generic, "no schema %s", name)
	}
	return s.check(n, v, "")
}

func violation(path, format string, args ...any) error {
	what := fmt.Sprintf(format, args...)
	if path == "" {
		return qverr.New(qverr.Config, "the document %s", what).With("path", "")
	}
	return qverr.New(qverr.Config, "%s %s", path, what).With("path", path)
}

func wrongType(path, want string, v any) error {
	place := path
	if place == "" {
		place = "the document"
	}
	return qverr.Malformed("%s is %s, not %s", place, typeOf(v), want).With("path", path)
}

func typeOf(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case float64:
		if x == math.Trunc(x) {
			return "an integer"
		}
		return "a number"
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("%T", v)
}

var article = map[string]string{
	"object": "an object", "array": "an array", "string": "a string",
	"integer": "an integer", "number": "a number", "boolean": "a boolean",
}

func hasType(t string, v any) bool {
	switch t {
	case "":
		return true
	case "object":
		_, ok := v.(map[string]any)
		return ok
	case "array":
		_, ok := v.([]any)
		return ok
	case "string":
		_, ok := v.(string)
		return ok
	case "boolean":
		_, ok := v.(bool)
		return ok
	case "number":
		_, ok := v.(float64)
		return ok
	case "integer":
		f, ok := v.(float64)
		return ok && f == math.Trunc(f)
	}
	return false
}

func (s *Set) check(n *node, v any, path string) error {
	n = s.resolve(n)
	if len(n.OneOf) > 0 {
		return s.checkOneOf(n.OneOf, v, path)
	}
	if !hasType(n.Type, v) {
		return wrongType(path, article[n.Type], v)
	}
	if len(n.Enum) > 0 && !slices.Contains(n.Enum, v) {
		return violation(path, "is %s, not one of %s", show(v), showAll(n.Enum))
	}
	switch x := v.(type) {
	case string:
		return s.checkString(n, x, path)
	case float64:
		return checkNumber(n, x, path)
	case []any:
		return s.checkArray(n, x, path)
	case map[string]any:
		return s.checkObject(n, x, path)
	}
	return nil
}

func (s *Set) checkOneOf(alternatives []*node, v any, path string) error {
	var want []string
	for _, a := range alternatives {
		a = s.resolve(a)
		if hasType(a.Type, v) {
			return s.check(a, v, path)
		}
		want = append(want, article[a.Type])
	}
	return wrongType(path, strings.Join(want, " or "), v)
}

func (s *Set) checkString(n *node, v, path string) error {
	length := utf8.RuneCountInString(v)
	if n.MinLength != nil && length < *n.MinLength {
		return violation(path, "has %d characters, at least %d are needed", length, *n.MinLength)
	}
	if n.MaxLength != nil && length > *n.MaxLength {
		return violation(path, "has %d characters, at most %d are allowed", length, *n.MaxLength)
	}
	if n.Pattern == "" {
		return nil
	}
	s.mu.Lock()
	if n.re == nil {
		n.re = regexp.MustCompile(n.Pattern)
	}
	re := n.re
	s.mu.Unlock()
	if !re.MatchString(v) {
		return violation(path, "is %s and does not match %s", show(v), n.Pattern)
	}
	if n.Format == "size" {
		if _, err := spec.ParseSize(v); err != nil {
			return violation(path, "is %s, which is too large", show(v))
		}
	}
	return nil
}

// maxExact is the largest integer up to which a float64 is exact.
const maxExact = 1 << 53

func checkNumber(n *node, v float64, path string) error {
	if n.Type == "integer" && math.Abs(v) > maxExact {
		return violation(path, "is %s, which is too large", show(v))
	}
	if n.Minimum != nil && v < *n.Minimum {
		return violation(path, "is %s, the least is %s", show(v), show(*n.Minimum))
	}
	if n.Maximum != nil && v > *n.Maximum {
		return violation(path, "is %s, the most is %s", show(v), show(*n.Maximum))
	}
	return nil
}

func (s *Set) checkArray(n *node, v []any, path string) error {
	if n.MinItems != nil && len(v) < *n.MinItems {
		return violation(path, "has %d entries, at least %d are needed", len(v), *n.MinItems)
	}
	if n.MaxItems != nil && len(v) > *n.MaxItems {
		return violation(path, "has %d entries, at most %d are allowed", len(v), *n.MaxItems)
	}
	if n.Items == nil {
		return nil
	}
	for i, item := range v {
		if err := s.check(n.Items, item, path+"["+strconv.Itoa(i)+"]"); err != nil {
			return err
		}
	}
	return nil
}

func (s *Set) checkObject(n *node, v map[string]any, path string) error {
	closed := string(n.Additional) == "false"
	for _, key := range slices.Sorted(maps.Keys(v)) {
		place := join(path, key)
		property := n.Properties[key]
		if property == nil {
			if closed {
				return violation(place, "is not a known key")
			}
			continue
		}
		if err := s.check(property, v[key], place); err != nil {
			return err
		}
	}
	for _, key := range n.Required {
		if _, ok := v[key]; !ok {
			return violation(join(path, key), "is missing")
		}
	}
	return nil
}

// join names a member; what stands in a path is bounded, since keys are input.
func join(path, key string) string {
	if len(key) > 64 {
		key = strings.ToValidUTF8(key[:64], "") + "…"
	}
	if path == "" {
		return key
	}
	return path + "." + key
}

func show(v any) string {
	if s, ok := v.(string); ok && len(s) > 64 {
		return strconv.Quote(strings.ToValidUTF8(s[:64], "")) + "…"
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}

func showAll(vs []any) string {
	parts := make([]string, len(vs))
	for i, v := range vs {
		parts[i] = show(v)
	}
	return strings.Join(parts, ", ")
}
