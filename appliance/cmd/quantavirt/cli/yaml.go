package cli

import (
	"bytes"
	"encoding/json"
	"fmt"
	"io"
	"regexp"
	"strings"
	"sync"
)

// writeYAML writes a JSON document as YAML 1.2, members in their order. Writing
// needs so little of YAML that a library for it would be most of this program's
// own size.
func writeYAML(w io.Writer, raw []byte) error {
	dec := json.NewDecoder(bytes.NewReader(raw))
	dec.UseNumber()
	var b strings.Builder
	if err := yamlValue(&b, dec, 0, false); err != nil {
		return err
	}
	_, err := io.WriteString(w, strings.TrimPrefix(b.String(), "\n"))
	return err
}

// yamlValue writes the next value. Inside a list item a mapping begins on the
// line of its dash.
func yamlValue(b *strings.Builder, dec *json.Decoder, indent int, inItem bool) error {
	tok, err := dec.Token()
	if err != nil {
		return err
	}
	switch t := tok.(type) {
	case json.Delim:
		if t == '{' {
			return yamlMapping(b, dec, indent, inItem)
		}
		return yamlList(b, dec, indent)
	case string:
		b.WriteString(" " + yamlString(t) + "\n")
	case nil:
		b.WriteString(" null\n")
	default:
		fmt.Fprintf(b, " %v\n", t)
	}
	return nil
}

func yamlMapping(b *strings.Builder, dec *json.Decoder, indent int, inItem bool) error {
	if !dec.More() {
		b.WriteString(" {}\n")
		_, err := dec.Token()
		return err
	}
	for n := 0; dec.More(); n++ {
		key, err := dec.Token()
		if err != nil {
			return err
		}
		switch {
		case n == 0 && inItem:
			b.WriteString(" ")
		default:
			if n == 0 {
				b.WriteString("\n")
			}
			b.WriteString(strings.Repeat("  ", indent))
		}
		b.WriteString(yamlString(key.(string)) + ":")
		if err := yamlValue(b, dec, indent+1, false); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

func yamlList(b *strings.Builder, dec *json.Decoder, indent int) error {
	if !dec.More() {
		b.WriteString(" []\n")
		_, err := dec.Token()
		return err
	}
	b.WriteString("\n")
	for dec.More() {
		b.WriteString(strings.Repeat("  ", indent) + "-")
		if err := yamlValue(b, dec, indent+1, true); err != nil {
			return err
		}
	}
	_, err := dec.Token()
	return err
}

var (
	// yamlPlain is what needs no quotes in any YAML version; numbers, dates
	// and the words that YAML 1.1 takes for booleans are not in it.
	yamlPlain    = lazyregexp(`^[A-Za-z_/][A-Za-z0-9_./+-]*$`)
	yamlReserved = lazyregexp(`(?i)^(y|n|yes|no|on|off|true|false|null)$`)
)

// lazyregexp compiles at the first use: the daemon and, in the image's one
// program, PID 1 and every VM process would all do it as they start.
func lazyregexp(form string) func() *regexp.Regexp {
	return sync.OnceValue(func() *regexp.Regexp { return regexp.MustCompile(form) })
}

func yamlString(s string) string {
	if yamlPlain().MatchString(s) && !yamlReserved().MatchString(s) {
		return s
	}
	var b bytes.Buffer
	enc := json.NewEncoder(&b)
	enc.SetEscapeHTML(false)
	_ = enc.Encode(s) // strings always encode
	// A JSON string is a YAML string; DEL is the one character YAML refuses.
	return strings.ReplaceAll(strings.TrimSuffix(b.String(), "\n"), "\x7f", `\u007f`)
}
