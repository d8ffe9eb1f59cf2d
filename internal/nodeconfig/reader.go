package nodeconfig

import (
	"encoding/json"
	"fmt"
	"maps"
	"math"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

// maxProblems bounds what one document can make the node report.
const maxProblems = 32

// report collects what is wrong with a document.
type report struct{ problems []error }

func (r *report) add(path, format string, args ...any) {
	if len(r.problems) < maxProblems {
		r.problems = append(r.problems, qverr.New(qverr.Config, "%s %s", path, fmt.Sprintf(format, args...)).With("path", path).WithHint("correct the configuration; docs/configuration.md has its schema"))
	}
}

// object is a JSON object that is being read. Members are taken out by name;
// what is left at the end is unknown.
type object struct {
	*report
	path  string
	left  map[string]any
	count int // of problems when it was opened
}

func (r *report) object(path string, v any) (*object, bool) {
	m, ok := v.(map[string]any)
	if !ok {
		r.add(path, "is %s, not an object", kindOf(v))
		return nil, false
	}
	return &object{report: r, path: path, left: maps.Clone(m), count: len(r.problems)}, true
}

// close reports unknown members and says whether nothing was wrong.
func (o *object) close() bool {
	for _, key := range slices.Sorted(maps.Keys(o.left)) {
		o.add(o.at(key), "is not a known key")
	}
	return len(o.problems) == o.count
}

// at is the path of a member; what stands in a path is bounded, as keys are
// input.
func (o *object) at(key string) string {
	key = bounded(key)
	if o.path == "" {
		return key
	}
	return o.path + "." + key
}

func bounded(s string) string {
	s = strings.ToValidUTF8(s, "?")
	if len(s) > 64 {
		return strings.ToValidUTF8(s[:64], "") + "…"
	}
	return s
}

// take removes a member.
func (o *object) take(key string) (any, bool) {
	v, ok := o.left[key]
	delete(o.left, key)
	return v, ok
}

// text is a string member that passes check; "" if it is absent or wrong.
func (o *object) text(key string, check func(string) error) string {
	v, ok := o.take(key)
	if !ok {
		return ""
	}
	s, isText := v.(string)
	if !isText {
		o.add(o.at(key), "is %s, not a string", kindOf(v))
		return ""
	}
	if err := check(s); err != nil {
		o.add(o.at(key), "%s: %v", show(s), err)
		return ""
	}
	return s
}

// need reports an absent member.
func (o *object) need(keys ...string) {
	for _, key := range keys {
		if _, ok := o.left[key]; !ok {
			o.add(o.at(key), "is missing")
		}
	}
}

// flag is a boolean member.
func (o *object) flag(key string, absent bool) bool {
	v, ok := o.take(key)
	if !ok {
		return absent
	}
	b, isBool := v.(bool)
	if !isBool {
		o.add(o.at(key), "is %s, not true or false", kindOf(v))
	}
	return b
}

// number is an integer member in a range; 0 if it is absent.
func (o *object) number(key string, least, most int) int {
	v, ok := o.take(key)
	if !ok {
		return 0
	}
	f, isNumber := v.(float64)
	switch {
	case !isNumber || f != math.Trunc(f):
		o.add(o.at(key), "is %s, not an integer", kindOf(v))
	case f < float64(least) || f > float64(most):
		o.add(o.at(key), "is %s, not between %d and %d", show(v), least, most)
	default:
		return int(f)
	}
	return 0
}

// list is an array member with the path of each entry.
func (o *object) list(key string, most int, each func(path string, v any)) bool {
	v, ok := o.take(key)
	if !ok {
		return false
	}
	items, isList := v.([]any)
	switch {
	case !isList:
		o.add(o.at(key), "is %s, not an array", kindOf(v))
	case len(items) > most:
		o.add(o.at(key), "has %d entries, at most %d are allowed", len(items), most)
	default:
		for i, item := range items {
			each(o.at(key)+"["+strconv.Itoa(i)+"]", item)
		}
		return true
	}
	return false
}

// texts is an array member of strings that pass check.
func (o *object) texts(key string, most int, check func(string) error) (all []string, present bool) {
	all = []string{}
	present = o.list(key, most, func(path string, v any) {
		s, ok := v.(string)
		if !ok {
			o.add(path, "is %s, not a string", kindOf(v))
			return
		}
		if err := check(s); err != nil {
			o.add(path, "%s: %v", show(s), err)
			return
		}
		all = append(all, s)
	})
	return all, present
}

// objects is an array member of objects.
func (o *object) objects(key string, most int, read func(e *object)) {
	o.list(key, most, func(path string, v any) {
		if e, ok := o.object(path, v); ok {
			read(e)
		}
	})
}

func kindOf(v any) string {
	switch x := v.(type) {
	case nil:
		return "null"
	case bool:
		return "a boolean"
	case string:
		return "a string"
	case float64:
		return "the number " + show(x)
	case []any:
		return "an array"
	case map[string]any:
		return "an object"
	}
	return fmt.Sprintf("%T", v)
}

func show(v any) string {
	if s, ok := v.(string); ok {
		return strconv.Quote(bounded(s))
	}
	data, err := json.Marshal(v)
	if err != nil {
		return fmt.Sprint(v)
	}
	return string(data)
}
