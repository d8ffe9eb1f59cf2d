package backup

import (
	"bufio"
	"crypto/aes"
	"crypto/cipher"
	"crypto/hmac"
	"encoding/binary"
	"errors"
	"io"

	"quantavirt/internal/qverr"
)

// sealer encrypts what is written to it.
type sealer struct {
	w    io.Writer
	aead cipher.AEAD
	head header
	buf  []byte
	out  []byte
	next uint64
}

// newSealer writes the header. Close must follow what is written.
func newSealer(w io.Writer, secret string) (*sealer, error) {
	h, err := newHeader()
	if err != nil {
		return nil, err
	}
	key, mac := h.keys(secret)
	copy(h.raw[macAt:], mac)
	s := &sealer{w: w, head: h, buf: make([]byte, 0, h.chunk)}
	if s.aead, err = newAEAD(key); err != nil {
		return nil, err
	}
	_, err = w.Write(h.raw[:])
	return s, err
}

func newAEAD(key []byte) (cipher.AEAD, error) {
	block, err := aes.NewCipher(key)
	if err != nil {
		return nil, qverr.New(qverr.Generic, "backup: %w", err)
	}
	return cipher.NewGCM(block)
}

func nonce(n uint64, last bool) []byte {
	b := make([]byte, 12)
	binary.BigEndian.PutUint64(b, n)
	if last {
		b[11] = 1
	}
	return b
}

// Write implements io.Writer.
func (s *sealer) Write(p []byte) (int, error) {
	for rest := p; len(rest) > 0; {
		if len(s.buf) == s.head.chunk { // more follows: this is not the last
			if err := s.seal(false); err != nil {
				return 0, err
			}
		}
		n := min(len(rest), s.head.chunk-len(s.buf))
		s.buf, rest = append(s.buf, rest[:n]...), rest[n:]
	}
	return len(p), nil
}

func (s *sealer) seal(last bool) error {
	s.out = s.aead.Seal(s.out[:0], nonce(s.next, last), s.buf, s.head.raw[:])
	s.next++
	s.buf = s.buf[:0]
	_, err := s.w.Write(s.out)
	return err
}

// Close writes the last chunk.
func (s *sealer) Close() error { return s.seal(true) }

// opener decrypts. What it returns is authentic; that it is complete is known only
// at io.EOF.
type opener struct {
	r     *bufio.Reader
	aead  cipher.AEAD
	head  header
	in    []byte
	plain []byte
	next  uint64
	err   error
}

// newOpener reads the header. QV_ERR_AUTH: the passphrase is wrong.
func newOpener(r io.Reader, secret string) (*opener, error) {
	raw := make([]byte, headerSize)
	if _, err := io.ReadFull(r, raw); err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		return nil, qverr.New(qverr.CodeOf(err), "read the backup: %w", err)
	}
	h, err := parseHeader(raw)
	if err != nil {
		return nil, err
	}
	key, mac := h.keys(secret)
	if !hmac.Equal(mac, h.raw[macAt:]) {
		return nil, qverr.New(qverr.Inval, "the passphrase is not that of the backup, or its header is damaged")
	}
	o := &opener{head: h, in: make([]byte, h.chunk+16)}
	o.reset(r)
	o.aead, err = newAEAD(key)
	return o, err
}

// reset begins with the chunks in r.
func (o *opener) reset(r io.Reader) { o.r = bufio.NewReaderSize(r, len(o.in)+1) }

// Read implements io.Reader. QV_ERR_CONFIG: the file is damaged or cut.
func (o *opener) Read(p []byte) (int, error) {
	for len(o.plain) == 0 {
		if o.err != nil {
			return 0, o.err
		}
		o.open()
	}
	n := copy(p, o.plain)
	o.plain = o.plain[n:]
	return n, nil
}

// open decrypts the next chunk. It is the last if nothing follows it.
func (o *opener) open() {
	n, err := io.ReadFull(o.r, o.in)
	if err != nil && !errors.Is(err, io.EOF) && !errors.Is(err, io.ErrUnexpectedEOF) {
		o.err = qverr.New(qverr.CodeOf(err), "read the backup: %w", err)
		return
	}
	last := err != nil
	if !last {
		if _, err := o.r.Peek(1); errors.Is(err, io.EOF) {
			last = true
		}
	}
	plain, err := o.aead.Open(o.in[:0], nonce(o.next, last), o.in[:n], o.head.raw[:])
	if err != nil {
		o.err = qverr.New(qverr.Config, "the backup is damaged or cut off in chunk %d", o.next)
		return
	}
	o.next++
	o.plain = plain
	if last {
		o.err = io.EOF
	}
}
