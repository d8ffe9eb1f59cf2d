package redact

import (
	"bytes"
	"encoding/json"
	"fmt"
)

// JSON is v as indented JSON without secrets, and how many there were.
func JSON(v any) ([]byte, int, error) {
	raw, err := json.Marshal(v)
	if err != nil {
		return nil, 0, fmt.Errorf("encode: %w", err)
	}
	d := json.NewDecoder(bytes.NewReader(raw))
	d.UseNumber()
	var tree any
	if err := d.Decode(&tree); err != nil {
		return nil, 0, fmt.Errorf("decode: %w", err)
	}
	var n int
	tree = clean(tree, &n)
	var out bytes.Buffer
	e := json.NewEncoder(&out)
	e.SetEscapeHTML(false)
	e.SetIndent("", "  ")
	if err := e.Encode(tree); err != nil {
		return nil, 0, fmt.Errorf("encode: %w", err)
	}
	return out.Bytes(), n, nil
}

func clean(v any, n *int) any {
	switch v := v.(type) {
	case map[string]any:
		out := make(map[string]any, len(v))
		for name, field := range v {
			key, count := Text([]byte(name)) // of a map, not of a struct
			*n += count
			if Secret(name) && !empty(field) {
				*n++
				out[string(key)] = Mark
				continue
			}
			out[string(key)] = clean(field, n)
		}
		return out
	case []any:
		for i := range v {
			v[i] = clean(v[i], n)
		}
		return v
	case string:
		if plainHash(v) {
			return v // its name says that it is no token's
		}
		out, count := Text([]byte(v))
		*n += count
		return string(out)
	}
	return v
}

// empty says that there is nothing to hide, which is worth knowing.
func empty(v any) bool {
	switch v := v.(type) {
	case nil:
		return true
	case string:
		return v == "" || v == Mark
	case []any:
		return len(v) == 0
	case map[string]any:
		return len(v) == 0
	}
	return false
}

// plainHash says that s is "sha256:" and a hash, and nothing else.
func plainHash(s string) bool {
	return len(s) == len(hashPrefix)+hashLen && s[:len(hashPrefix)] == hashPrefix && run([]byte(s[len(hashPrefix):]), hexDigit) == hashLen
}
