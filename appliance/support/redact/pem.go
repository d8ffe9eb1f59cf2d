package redact

import "bytes"

const (
	pemBegin = "-----BEGIN "
	pemEnd   = "-----END "
	pemKey   = "PRIVATE KEY-----"
	// pemLabel bounds the first line of a key up to pemKey, in bytes.
	pemLabel = 64
	// pemMost bounds a key in PEM with what may stand between its lines, in bytes.
	pemMost = 64 << 10
)

// marker is the first or the last line of a private key.
type marker struct {
	at, end int // end < 0: there is none
	last    bool
}

// pems takes private keys in PEM out. Of one that is cut off at its end or its beginning
// it takes out what there is.
func pems(p []byte) (out []byte, n int) {
	done := 0
	for m := next(p, 0); m.end >= 0; n++ {
		after := next(p, m.end)
		switch {
		case m.last: // its beginning is not there
			out = append(out, p[done:m.at-bodyBefore(p[done:m.at])]...)
			done = m.end
		case after.end >= 0 && after.last && after.at-m.end <= pemMost:
			out = append(out, p[done:m.at]...)
			done = after.end
			after = next(p, done)
		default:
			out = append(out, p[done:m.at]...)
			most := len(p)
			if after.end >= 0 {
				most = after.at
			}
			done = m.end + run(p[m.end:most], pemByte)
			done += run(p[done:most], unended) // it may have swallowed the beginning of another secret
		}
		out = append(out, Mark...)
		m = after
	}
	if n == 0 {
		return p, 0
	}
	return append(out, p[done:]...), n
}

// next finds a marker.
func next(p []byte, from int) marker {
	for at := from; ; {
		i := bytes.Index(p[at:], []byte(pemKey))
		if i < 0 {
			return marker{end: -1}
		}
		key := at + i
		at = key + len(pemKey)
		line := p[max(from, key-pemLabel):key]
		begin, last := bytes.LastIndex(line, []byte(pemBegin)), bytes.LastIndex(line, []byte(pemEnd))
		if i := max(begin, last); i >= 0 {
			return marker{at: key - len(line) + i, end: at, last: last > begin}
		}
	}
}

// bodyBefore is how much at the end of p may be the body of a key.
func bodyBefore(p []byte) int {
	n := 0
	for n < len(p) && n < pemMost && pemByte(p[len(p)-1-n]) {
		n++
	}
	return n
}

func unended(c byte) bool { return c != '\n' }

// pemByte is one of base64, of a line end, or of one in a string of JSON.
func pemByte(c byte) bool {
	return base64URL(c) || c == '+' || c == '/' || c == '=' || c == '\n' || c == '\r' || c == '\\'
}
