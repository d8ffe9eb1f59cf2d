package cli

import (
	"bytes"
	"context"
	"io"
	"net/http"
	"os"

	"quantavirt/internal/qverr"
)

// upload is a file on its way to the node.
type upload struct {
	file *os.File
	size int64
	body io.Reader
	bar  *bar
}

// openUpload opens a regular file or a block device. Its length must be known:
// the node checks it against its free space before the first byte.
func (a *app) openUpload(path, label string) (*upload, error) {
	f, err := os.Open(path)
	if err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "%w", err)
	}
	st, err := f.Stat()
	if err == nil && st.IsDir() {
		err = qverr.New(qverr.Inval, "%s is a folder", path)
	}
	var n int64
	if err == nil {
		n, err = f.Seek(0, io.SeekEnd)
	}
	if err == nil {
		_, err = f.Seek(0, io.SeekStart)
	}
	if err != nil {
		f.Close()
		return nil, qverr.New(qverr.CodeOf(err), "find the length of %s: %w", path, err)
	}
	b := a.newBar(label, "bytes")
	return &upload{file: f, size: n, bar: b, body: &counted{r: f, bar: b, total: n}}, nil
}

func (u *upload) close() { u.file.Close() }

// edit announces the length and waits for the node's consent.
func (u *upload) edit(_ context.Context, r *http.Request) error {
	if u.size == 0 {
		r.Body = http.NoBody
		return nil
	}
	r.ContentLength = u.size
	r.Header.Set("Expect", "100-continue")
	return nil
}

// kind looks into the file: the header of a bzImage or ELF is a kernel, a cpio
// archive or something compressed an initrd, a partition table or a file system
// an image.
func (u *upload) kind() string {
	head := make([]byte, 2048)
	n, _ := io.ReadFull(io.NewSectionReader(u.file, 0, u.size), head)
	head = head[:n]
	has := func(at int, magic string) bool {
		return len(head) >= at+len(magic) && bytes.Equal(head[at:at+len(magic)], []byte(magic))
	}
	switch {
	case has(0x202, "HdrS"), has(0, "\x7fELF"):
		return "kernel"
	case has(0, "070701"), has(0, "070702"), has(0, "\x1f\x8b"), has(0, "\x28\xb5\x2f\xfd"), has(0, "\xfd7zXZ"):
		return "initrd"
	case has(510, "\x55\xaa"), has(1024+56, "\x53\xef"), has(512, "EFI PART"):
		return "raw"
	}
	return ""
}
