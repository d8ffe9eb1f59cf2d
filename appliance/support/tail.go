package support

import "bytes"

// tail keeps the end of what is written to it, in whole lines.
type tail struct {
	limit int
	buf   []byte
	cut   int64 // bytes before that
}

// Write never fails.
func (t *tail) Write(p []byte) (int, error) {
	t.buf = append(t.buf, p...)
	if len(t.buf) > 2*t.limit {
		t.trim()
	}
	return len(p), nil
}

func (t *tail) trim() {
	over := len(t.buf) - t.limit
	if over <= 0 {
		return
	}
	if i := bytes.IndexByte(t.buf[over:], '\n'); i >= 0 {
		over += i + 1
	}
	t.cut += int64(over)
	t.buf = append(t.buf[:0], t.buf[over:]...)
}

// file is what was kept.
func (t *tail) file(name string) File {
	t.trim()
	return File{Name: name, Text: t.buf, Cut: t.cut}
}

// lastOf is the end of data as a file.
func lastOf(name string, data []byte, limit int) File {
	t := tail{limit: limit, buf: data}
	return t.file(name)
}
