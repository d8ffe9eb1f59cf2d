// Package needle looks for secrets in what may hold copies of them, such as memory
// images, disks and logs: as they are, in hexadecimal and in base64.
package needle

import (
	"bytes"
	"encoding/base64"
	"encoding/binary"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"strings"
)

// shortest is below what chance finds somewhere.
const shortest = 16

const chunk = 1 << 20

// Hit is a place where a secret lies.
type Hit struct {
	Name   string // of the secret
	Form   string // raw, hex or base64
	Offset int64
}

func (h Hit) String() string { return fmt.Sprintf("%s (%s) at %#x", h.Name, h.Form, h.Offset) }

type needle struct {
	name, form string
	bytes      []byte
}

// Set is secrets to be looked for. The zero value has none.
type Set struct {
	needles []needle
	longest int
	first   [1 << 16]bool    // two bytes that some begin with
	begins  map[uint32][]int // needles by their first four
}

// Add takes a secret of at least 16 bytes, in all forms.
func (s *Set) Add(name string, secret []byte) error {
	if len(secret) < shortest {
		return fmt.Errorf("needle: %s has %d bytes, want at least %d", name, len(secret), shortest)
	}
	s.add(name, "raw", bytes.Clone(secret))
	text := hex.EncodeToString(secret)
	s.add(name, "hex", []byte(text))
	if upper := strings.ToUpper(text); upper != text {
		s.add(name, "hex", []byte(upper))
	}
	for _, e := range []*base64.Encoding{base64.RawStdEncoding, base64.RawURLEncoding} {
		for shift := range 3 {
			if b := within(e, secret, shift); e == base64.RawStdEncoding || bytes.ContainsAny(b, "-_") {
				s.add(name, "base64", b)
			}
		}
	}
	return nil
}

// within is the base64 text of a secret behind shift bytes of something else, without the
// characters that depend on what lies before and after it.
func within(e *base64.Encoding, secret []byte, shift int) []byte {
	text := e.AppendEncode(nil, append(make([]byte, shift), secret...))
	if (shift+len(secret))%3 != 0 {
		text = text[:len(text)-1]
	}
	return text[[3]int{0, 2, 3}[shift]:]
}

func (s *Set) add(name, form string, b []byte) {
	if s.begins == nil {
		s.begins = make(map[uint32][]int)
	}
	s.first[binary.LittleEndian.Uint16(b)] = true
	key := binary.LittleEndian.Uint32(b)
	s.begins[key] = append(s.begins[key], len(s.needles))
	s.needles = append(s.needles, needle{name, form, b})
	s.longest = max(s.longest, len(b))
}

// Search reads all of r and tells of each place where a secret lies.
func (s *Set) Search(r io.Reader, found func(Hit)) error {
	buf := make([]byte, 0, chunk+s.longest)
	var base int64 // offset of the buffer's beginning
	for {
		n, err := io.ReadFull(r, buf[len(buf):cap(buf)])
		buf = buf[:len(buf)+n]
		last := errors.Is(err, io.EOF) || errors.Is(err, io.ErrUnexpectedEOF)
		if err != nil && !last {
			return err
		}
		end := len(buf)
		if !last {
			end -= s.longest // the rest is looked at with what follows
		}
		s.search(buf, end, base, found)
		if last {
			return nil
		}
		base += int64(end)
		buf = buf[:copy(buf, buf[end:])]
	}
}

// search looks for what begins before end.
func (s *Set) search(buf []byte, end int, base int64, found func(Hit)) {
	for i := 0; i < end && i+4 <= len(buf); i++ {
		if !s.first[uint16(buf[i])|uint16(buf[i+1])<<8] {
			continue
		}
		for _, k := range s.begins[binary.LittleEndian.Uint32(buf[i:])] {
			if n := &s.needles[k]; bytes.HasPrefix(buf[i:], n.bytes) {
				found(Hit{n.name, n.form, base + int64(i)})
			}
		}
	}
}
