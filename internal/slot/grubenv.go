package slot

import (
	"bytes"
	"slices"
	"strconv"
	"strings"

	"quantavirt/internal/qverr"
)

// Variables of the environment block.
const (
	EnvDefault = "qv_default" // the blessed slot
	EnvTry     = "qv_try"     // the slot to try, empty for none
	EnvTries   = "qv_tries"   // tries left, in decimal
)

// GRUB's form: the signature, then NAME=VALUE lines in which a backslash stands
// before a backslash or a line feed of a value, then '#' up to the end (GRUB manual, "The
// GRUB environment block"; grub-core/lib/envblk.c). Lines that begin with '#' are passed over.
const (
	EnvSize      = 1024
	envSignature = "# GRUB Environment Block\n"
	sector       = 512
)

// Env is GRUB's environment block. Variables of others are kept.
type Env struct {
	vars []variable
}

type variable struct{ name, value string }

// ParseEnv reads an environment block. QV_ERR_INVAL: GRUB would not take it.
func ParseEnv(data []byte) (Env, error) {
	if len(data) != EnvSize {
		return Env{}, qverr.New(qverr.Inval, "GRUB's environment block has %d bytes, not %d", len(data), EnvSize)
	}
	rest, ok := bytes.CutPrefix(data, []byte(envSignature))
	if !ok {
		return Env{}, qverr.New(qverr.Inval, "GRUB's environment block begins with %.24q", data)
	}
	var e Env
	for len(rest) > 0 {
		line, after := cutLine(rest)
		if name, value, ok := bytes.Cut(line, []byte("=")); ok && line[0] != '#' {
			e.Set(string(name), unescape(value))
		}
		rest = after
	}
	return e, nil
}

// cutLine finds the line feed that no backslash stands before. A line without
// an end is the filling.
func cutLine(data []byte) (line, rest []byte) {
	comment := data[0] == '#'
	for i := 0; i < len(data); i++ {
		switch {
		case data[i] == '\\' && !comment:
			i++
		case data[i] == '\n':
			return data[:i], data[i+1:]
		}
	}
	return nil, nil
}

func unescape(value []byte) string {
	var b strings.Builder
	for i := 0; i < len(value); i++ {
		if value[i] == '\\' && i+1 < len(value) {
			i++
		}
		b.WriteByte(value[i])
	}
	return b.String()
}

// Get is the value of a variable, "" if it is not set.
func (e Env) Get(name string) string {
	for _, v := range e.vars {
		if v.name == name {
			return v.value
		}
	}
	return ""
}

// Set sets a variable.
func (e *Env) Set(name, value string) {
	vars := slices.Clone(e.vars) // a copy of e must not change
	i := slices.IndexFunc(vars, func(v variable) bool { return v.name == name })
	if i < 0 {
		vars = append(vars, variable{name, value})
	} else {
		vars[i].value = value
	}
	e.vars = vars
}

// Encode is the block, EnvSize bytes. Our own variables come first and lie in
// the first sector, so that writing the block over itself changes all of them
// or none. QV_ERR_NOSPC: it does not fit.
func (e Env) Encode() ([]byte, error) {
	out := []byte(envSignature)
	write := func(v variable) {
		out = append(append(out, v.name...), '=')
		for _, c := range []byte(v.value) {
			if c == '\\' || c == '\n' {
				out = append(out, '\\')
			}
			out = append(out, c)
		}
		out = append(out, '\n')
	}
	for _, name := range []string{EnvDefault, EnvTry, EnvTries} {
		write(variable{name, e.Get(name)})
	}
	own := len(out)
	for _, v := range e.vars {
		if v.name != EnvDefault && v.name != EnvTry && v.name != EnvTries {
			write(v)
		}
	}
	if own > sector || len(out) > EnvSize {
		return nil, qverr.New(qverr.NoSpc, "GRUB's environment block holds %d bytes, %d are needed", EnvSize, len(out))
	}
	return append(out, bytes.Repeat([]byte("#"), EnvSize-len(out))...), nil
}

// sequence is a slot's number in a variable, 0 for none.
func (e Env) sequence(name string) uint32 {
	n, err := ParseSequence(e.Get(name))
	if err != nil {
		return 0
	}
	return n
}

// Default is the blessed slot, 0 for none.
func (e Env) Default() uint32 { return e.sequence(EnvDefault) }

// Try is the slot that is on trial, 0 for none, and the tries left.
func (e Env) Try() (sequence uint32, left int) {
	return e.sequence(EnvTry), number(e.Get(EnvTries))
}

// Bless makes a slot the default and ends its trial.
func (e *Env) Bless(sequence uint32) {
	e.Set(EnvDefault, Digits(sequence))
	e.EndTry()
}

// EndTry leaves no slot to try.
func (e *Env) EndTry() {
	e.Set(EnvTry, "")
	e.Set(EnvTries, "0")
}

// Arm has GRUB try a slot once; with tried it is taken as tried already, which is
// what a kernel needs that is started without GRUB.
func (e *Env) Arm(sequence uint32, tried bool) {
	e.Set(EnvTry, Digits(sequence))
	e.Set(EnvTries, "1")
	if tried {
		e.Set(EnvTries, "0")
	}
}

// Boot is the slot that GRUB boots, 0 for none, and the block as it leaves it.
func (e Env) Boot() (sequence uint32, after Env) {
	if try, left := e.Try(); try != 0 && left > 0 {
		e.Set(EnvTries, strconv.Itoa(left-1))
		return try, e
	}
	return e.Default(), e
}
