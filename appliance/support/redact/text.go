package redact

import (
	"bytes"
	"strings"
)

const (
	tokenPrefix = "qv_"
	// tokenLeast is how much of a token's 43 characters is a secret worth the name.
	tokenLeast = 20
	hashPrefix = "sha256:"
	hashLen    = 64
	bearer     = "bearer "
	// maxName bounds how long a name before "=" or ":" is, in bytes.
	maxName = 128
	// A recovery key is eight groups of eight of these letters (internal/sealed).
	modhex         = "cbdefghijklnrtuv"
	recoveryGroup  = 8
	recoveryGroups = 8
)

// public are the names before "=" whose SHA-256 is no token's.
var public = map[string]bool{"ca": true, "authority": true, "identity": true, "fingerprint": true, "ca-pin": true, "sha256": true, "digest": true}

// text is one pass over p.
type text struct {
	p, out []byte
	at     int // of the next byte of p
	n      int // secrets taken out
}

// Text is p without secrets, and how many there were. What is no secret stays byte by
// byte.
func Text(p []byte) ([]byte, int) {
	p, n := pems(p)
	t := text{p: p, out: make([]byte, 0, len(p)), n: n}
	for t.at < len(p) {
		if !t.secret() {
			t.out = append(t.out, p[t.at])
			t.at++
		}
	}
	return t.out, t.n
}

// secret replaces what begins at the next byte, if it is one.
func (t *text) secret() bool {
	rest := t.p[t.at:]
	switch c := rest[0]; c {
	case '=', ':':
		return t.assignment() || c == ':' && t.userinfo()
	case 'q':
		if bytes.HasPrefix(rest, []byte(tokenPrefix)) {
			if n := run(rest[len(tokenPrefix):], base64URL); n >= tokenLeast {
				return t.replace(len(tokenPrefix) + n)
			}
		}
	case 's', 'S':
		return t.hash(rest)
	case 'b', 'B':
		if fold(rest, bearer) {
			if n := run(rest[len(bearer):], unspaced); n > 0 && !t.begins(len(bearer)) {
				t.keep(len(bearer))
				return t.replace(n)
			}
		}
	}
	if n := recovery(rest); n > 0 {
		return t.replace(n)
	}
	return false
}

func (t *text) keep(n int) {
	t.out = append(t.out, t.p[t.at:t.at+n]...)
	t.at += n
}

// replace puts the mark in place of the next n bytes.
func (t *text) replace(n int) bool {
	t.out = append(t.out, Mark...)
	t.at += n
	t.n++
	return true
}

// begins says that the mark stands at the n-th next byte already.
func (t *text) begins(n int) bool { return bytes.HasPrefix(t.p[t.at+n:], []byte(Mark)) }

// hash takes out a SHA-256, unless what stands before it says that it is something
// public.
func (t *text) hash(rest []byte) bool {
	if !fold(rest, hashPrefix) {
		return false
	}
	n := run(rest[len(hashPrefix):], hexDigit)
	if n < hashLen {
		return false
	}
	if before := t.p[:t.at]; len(before) > 0 && before[len(before)-1] == '=' && public[string(name(before[:len(before)-1]))] {
		return false
	}
	t.keep(len(hashPrefix))
	return t.replace(n)
}

// assignment takes out the value after a "=" or ":" that follows the name of a secret:
// name=value, "name": "value", name: value.
func (t *text) assignment() bool {
	before := bytes.TrimRight(t.p[max(0, t.at-2*maxName):t.at], " \t")
	key := string(name(bytes.TrimRight(before, `"'\`)))
	if key == "" || !Secret(key) {
		return false
	}
	skip := 1 + run(t.p[t.at+1:], blank)
	if t.begins(skip) {
		return false
	}
	n := value(t.p[t.at+skip:], fold([]byte(lastWord(key)), "authorization"))
	if n == 0 {
		return false
	}
	t.keep(skip)
	return t.replace(n)
}

func lastWord(key string) string { return key[strings.LastIndexAny(key, "-_.")+1:] }

// value is how long the value is that p begins with: to the end of its quotes, or of the
// word, or of the line, as of what has parts.
func value(p []byte, line bool) int {
	escapes := run(p, func(c byte) bool { return c == '\\' })
	if escapes < len(p) && (p[escapes] == '"' || p[escapes] == '\'') {
		return quoted(p, p[escapes], escapes)
	}
	if line || len(p) > 0 && (p[0] == '{' || p[0] == '[') {
		return run(p, unended)
	}
	return run(p, func(c byte) bool { return unspaced(c) && c != '"' })
}

// quoted is the length of a string in quotes, each of them and of those within it behind
// so many, and more, escapes. One that does not end goes to the end of the line.
func quoted(p []byte, quote byte, escapes int) int {
	back := 0
	for i := escapes + 1; i < len(p); i++ {
		switch c := p[i]; {
		case c == '\n':
			return i
		case c == '\\':
			back++
			continue
		case c == quote && back <= escapes:
			return i + 1
		}
		back = 0
	}
	return len(p)
}

// userinfo takes out who a URL is opened by: scheme://user:password@host.
func (t *text) userinfo() bool {
	const sign = "://"
	rest := t.p[t.at:]
	if !bytes.HasPrefix(rest, []byte(sign)) {
		return false
	}
	end := run(rest[len(sign):], func(c byte) bool { return unspaced(c) && c != '/' && c != '"' && c != '\'' && c != '<' && c != '>' })
	n := bytes.LastIndexByte(rest[len(sign):len(sign)+end], '@')
	if n <= 0 || t.begins(len(sign)) {
		return false
	}
	t.keep(len(sign))
	return t.replace(n)
}

// recovery is the length of the recovery key that p begins with, 0 if there is none.
func recovery(p []byte) int {
	const all = recoveryGroups*(recoveryGroup+1) - 1
	if len(p) < all || p[recoveryGroup] != '-' {
		return 0
	}
	for i := range all {
		if (i%(recoveryGroup+1) == recoveryGroup) != (p[i] == '-') || p[i] != '-' && strings.IndexByte(modhex, lower(p[i])) < 0 {
			return 0
		}
	}
	return all
}

// name is the name that p ends with.
func name(p []byte) []byte {
	i := len(p)
	for i > 0 && len(p)-i < maxName && nameByte(p[i-1]) {
		i--
	}
	return p[i:]
}

func nameByte(c byte) bool { return base64URL(c) || c == '.' }

func base64URL(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'z' || c >= 'A' && c <= 'Z' || c == '-' || c == '_'
}

func hexDigit(c byte) bool {
	return c >= '0' && c <= '9' || c >= 'a' && c <= 'f' || c >= 'A' && c <= 'F'
}

func unspaced(c byte) bool { return c > ' ' }

func blank(c byte) bool { return c == ' ' || c == '\t' }

func lower(c byte) byte {
	if c >= 'A' && c <= 'Z' {
		c += 'a' - 'A'
	}
	return c
}

// run is how many bytes p begins with that are ok.
func run(p []byte, ok func(byte) bool) int {
	for i, c := range p {
		if !ok(c) {
			return i
		}
	}
	return len(p)
}

// fold says that p begins with lower, in any case.
func fold(p []byte, low string) bool {
	return len(p) >= len(low) && strings.EqualFold(string(p[:len(low)]), low)
}
