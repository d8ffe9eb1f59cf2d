package qverr

import (
	"strings"
	"unicode"
	"unicode/utf8"
)

// Body is the JSON document of an API answer that reports an error.
type Body struct {
	Error Payload `json:"error"`
}

// Payload describes an error on the wire and inside a task. Message is the
// catalogue's text of the code, Detail says what happened to what.
type Payload struct {
	Code      Code           `json:"code"`
	Name      string         `json:"name"`
	Message   string         `json:"message"`
	Detail    string         `json:"detail"`
	Subsystem string         `json:"subsystem"`
	RequestID string         `json:"request_id,omitempty"`
	Transient bool           `json:"transient"`
	Details   map[string]any `json:"details,omitempty"`
}

const hintKey = "hint"

// NewBody builds the API's error body for err, which must not be nil.
func NewBody(err error, requestID string) Body {
	return Body{Error: NewPayload(err, requestID)}
}

// NewPayload is the part of NewBody that tasks keep as well.
func NewPayload(err error, requestID string) Payload {
	e := From(err)
	row := entryOf(e.Code)
	p := Payload{
		Code:      e.Code,
		Name:      row.Name,
		Message:   row.Summary,
		Detail:    text(err, e),
		Subsystem: row.Subsystem,
		RequestID: requestID,
		Transient: row.Transient && !e.NotTransient,
	}
	if p.Detail == "" || p.Detail == row.Summary {
		p.Detail = strings.Join(row.Recovery, "; ")
	}
	if len(e.Details) > 0 || e.Hint != "" {
		p.Details = make(map[string]any, len(e.Details)+1)
		for k, v := range e.Details {
			p.Details[k] = v
		}
		if e.Hint != "" {
			p.Details[hintKey] = e.Hint
		}
	}
	return p
}

// Err turns a received payload back into an error; the reverse of NewPayload.
func (p Payload) Err() *Error {
	e := &Error{Code: p.Code, Message: p.Detail, NotTransient: !p.Transient}
	if e.Message == "" {
		e.Message = p.Message
	}
	for k, v := range p.Details {
		if hint, ok := v.(string); ok && k == hintKey {
			e.Hint = hint
			continue
		}
		e.With(k, v)
	}
	if p.RequestID != "" {
		e.With("request_id", p.RequestID)
	}
	return e
}

// IsTransient says whether repeating the operation may help.
func IsTransient(err error) bool {
	e := From(err)
	return e != nil && entryOf(e.Code).Transient && !e.NotTransient
}

// Line is the command line's report of err without a line end:
// "Error: NAME (CODE): message — hint".
func Line(err error) string {
	e := From(err)
	row := entryOf(e.Code)
	line := "Error: " + row.String() + ": " + oneLine(text(err, e))
	if hint := HintOf(err); hint != "" {
		line += " — " + oneLine(hint)
	}
	return line
}

// HintOf is what to do about err: its own hint or the first recovery step.
func HintOf(err error) string {
	e := From(err)
	if e == nil {
		return ""
	}
	if e.Hint != "" {
		return e.Hint
	}
	if row := entryOf(e.Code); len(row.Recovery) > 0 {
		return lowerFirst(row.Recovery[0])
	}
	return ""
}

// text is what err says, with the context that wrappers added around e; a bare
// code says its summary.
func text(err error, e *Error) string {
	if code, ok := err.(Code); ok {
		return entryOf(code).Summary
	}
	if s := err.Error(); s != "" {
		return s
	}
	return entryOf(e.Code).Summary
}

func oneLine(s string) string {
	return strings.Map(func(r rune) rune {
		if unicode.IsControl(r) {
			return ' '
		}
		return r
	}, s)
}

// lowerFirst makes a sentence continue a line, but leaves abbreviations alone.
func lowerFirst(s string) string {
	first, n := utf8.DecodeRuneInString(s)
	second, _ := utf8.DecodeRuneInString(s[n:])
	if unicode.IsUpper(first) && !unicode.IsUpper(second) {
		return string(unicode.ToLower(first)) + s[n:]
	}
	return s
}
