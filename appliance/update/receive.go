package update

import (
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"fmt"
	"io"
	"net/http"
	"net/url"
	"os"
	"path/filepath"
	"syscall"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/appliance/task"
	"quantavirt/internal/bundle"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
)

// stallTime is how long a download may stand still.
const stallTime = time.Minute

// received is a bundle whose system for this machine is verified and lies in a
// file without a name.
type received struct {
	manifest bundle.Manifest
	uki      bundle.File
	file     *os.File
}

func (r *received) close() { _ = r.file.Close() }

// receive reads a bundle. What cannot be installed here is refused before the
// first byte of the payload is read.
func (s *Service) receive(ctx context.Context, r io.Reader, force bool, p *task.Progress) (*received, error) {
	p.Phase("receive")
	rec, err := s.record()
	if err != nil {
		return nil, err
	}
	keys, err := s.keys(rec)
	if err != nil {
		return nil, err
	}
	in, err := bundle.NewReader(&interruptible{ctx, r}, keys)
	if err != nil {
		return nil, err
	}
	m := in.Manifest()
	if err := s.admit(rec, m, force); err != nil {
		return nil, err
	}
	if _, err := keys.Apply(m.Keys); err != nil {
		return nil, err
	}
	out := &received{manifest: m}
	out.uki, _ = m.UKI(s.build)
	if out.file, err = s.spool(out.uki.Size); err != nil {
		return nil, err
	}
	if err := readFiles(in, out, p); err != nil {
		out.close()
		return nil, err
	}
	return out, nil
}

// admit says why a bundle is not wanted here.
func (s *Service) admit(rec record, m bundle.Manifest, force bool) error {
	if s.build == "" {
		return qverr.New(qverr.Unsupported, "this system was not made from an image: there is nothing to replace")
	}
	counter, failures, err := s.history(rec)
	if err != nil {
		return err
	}
	if err := m.Admit(bundle.System{Version: s.Version, Build: s.build, Counter: counter}); err != nil {
		return err
	}
	uki, _ := m.UKI(s.build)
	for _, f := range failures {
		if !force && (f.SHA256 == uki.SHA256 || f.Version == m.Version) {
			return qverr.New(qverr.State, "version %s failed on this node on %s: %s", m.Version, f.Time.Format(time.DateTime), f.Reason).
				WithHint("take a later version, or try this one again with --force").With("reason", f.Reason)
		}
	}
	return nil
}

// history is what the node has had: the highest counter of a blessed system,
// and the systems that failed. The slots know too, should the store be new.
func (s *Service) history(rec record) (counter uint64, failures []failure, err error) {
	counter, failures = rec.Counter, rec.Failures
	if _, ok := s.where(); !ok {
		return counter, failures, nil
	}
	err = s.disk(false, func(_ where, d *disk) error {
		for _, i := range d.infos {
			switch {
			case i.State == slot.StateGood:
				counter = max(counter, i.Counter)
			case i.State == slot.StateFailed && i.Trial != nil:
				failures = append(failures, failure{Version: i.Version, SHA256: i.SHA256, Reason: i.Reason, Time: i.Trial.ArmedAt})
			}
		}
		return nil
	})
	return counter, failures, err
}

// readFiles reads the whole payload and keeps this machine's system.
func readFiles(in *bundle.Reader, out *received, p *task.Progress) error {
	count := &progress{total: out.manifest.Size(), report: p.Set}
	for {
		f, err := in.Next()
		if errors.Is(err, io.EOF) {
			return nil
		}
		if err != nil {
			return err
		}
		to := io.Discard
		if f == out.uki {
			to = out.file
		}
		if err := in.Copy(counted{to, count}); err != nil {
			if errors.Is(err, syscall.ENOSPC) {
				return qverr.New(qverr.NoSpc, "keep the update: %w", err)
			}
			return err
		}
	}
}

type counted struct {
	w io.Writer
	p *progress
}

func (c counted) Write(b []byte) (int, error) {
	n, err := c.w.Write(b)
	c.p.add(n)
	return n, err
}

type interruptible struct {
	ctx context.Context
	r   io.Reader
}

func (i *interruptible) Read(p []byte) (int, error) {
	if err := i.ctx.Err(); err != nil {
		return 0, err
	}
	return i.r.Read(p)
}

// spool makes a file of size bytes below updates/ that goes with its last
// descriptor. QV_ERR_NOSPC: there is no room.
func (s *Service) spool(size int64) (*os.File, error) {
	dir := filepath.Join(s.DataDir, "updates")
	if err := os.MkdirAll(dir, 0o700); err != nil {
		return nil, qverr.New(qverr.IO, "keep the update: %w", err)
	}
	var st unix.Statfs_t
	if err := unix.Statfs(dir, &st); err != nil {
		return nil, qverr.New(qverr.IO, "keep the update: %w", err)
	}
	free := int64(st.Bavail) * st.Bsize
	if s.RAM != nil {
		free = min(free, s.RAM())
	}
	if free < size+margin {
		return nil, qverr.New(qverr.NoSpc, "the update's system takes %d MiB until it is written, %d MiB are free", size>>20, free>>20).
			With("needed_bytes", size).With("free_bytes", free)
	}
	fd, err := unix.Open(dir, unix.O_TMPFILE|unix.O_RDWR|unix.O_CLOEXEC, 0o600)
	if err != nil {
		return nil, qverr.New(qverr.IO, "keep the update: %w", err)
	}
	f := os.NewFile(uintptr(fd), "update")
	if err := unix.Fallocate(fd, 0, 0, size); err != nil && !errors.Is(err, unix.EOPNOTSUPP) {
		_ = f.Close()
		return nil, qverr.New(qverr.CodeOf(err), "keep the update: %w", err)
	}
	return f, nil
}

// verify looks at the system once more, as it lies in the file, and takes it
// apart.
func (r *received) verify(ctx context.Context, p *task.Progress) (*image, error) {
	p.Phase("verify")
	sum := sha256.New()
	count := &progress{total: r.uki.Size, report: p.Set}
	if err := copyTo(ctx, sum, io.NewSectionReader(r.file, 0, r.uki.Size), count); err != nil {
		return nil, qverr.New(qverr.IO, "read the update: %w", err)
	}
	if hex.EncodeToString(sum.Sum(nil)) != r.uki.SHA256 {
		return nil, qverr.New(qverr.IO, "the update changed on the data volume after it was received")
	}
	return openImage(r.file, r.uki.Size, r.uki.SHA256)
}

// download opens a bundle on a server. The signature protects it, so plain HTTP
// will do.
func download(ctx context.Context, from string) (io.ReadCloser, error) {
	u, err := url.Parse(from)
	if err != nil || u.Scheme != "http" && u.Scheme != "https" || u.Host == "" {
		return nil, qverr.New(qverr.Inval, "%.200q is no address that begins with http:// or https://", from).With("path", "url")
	}
	ctx, cancel := context.WithCancelCause(ctx)
	watch := time.AfterFunc(stallTime, func() {
		cancel(qverr.New(qverr.Timeout, "nothing came from %s for %s", u.Host, stallTime))
	})
	fail := func(err error) (io.ReadCloser, error) {
		watch.Stop()
		cancel(nil)
		return nil, err
	}
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, u.String(), nil)
	if err != nil {
		return fail(qverr.New(qverr.Inval, "fetch the update: %w", err))
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		if cause := context.Cause(ctx); cause != nil {
			err = cause
		}
		return fail(qverr.New(codeOf(err), "fetch the update: %w", err))
	}
	if resp.StatusCode != http.StatusOK {
		_ = resp.Body.Close()
		code := qverr.IO
		if resp.StatusCode == http.StatusNotFound {
			code = qverr.NoEnt
		}
		return fail(qverr.New(code, "fetch the update: %s answered %s", u.Host, resp.Status))
	}
	return &body{ctx: ctx, ReadCloser: resp.Body, watch: watch, cancel: cancel}, nil
}

// codeOf is QV_ERR_IO for what has no code of its own.
func codeOf(err error) qverr.Code {
	if c := qverr.CodeOf(err); c != qverr.Generic {
		return c
	}
	return qverr.IO
}

// body is a download that may not stand still.
type body struct {
	ctx context.Context
	io.ReadCloser
	watch  *time.Timer
	cancel context.CancelCauseFunc
}

func (b *body) Read(p []byte) (int, error) {
	n, err := b.ReadCloser.Read(p)
	b.watch.Reset(stallTime)
	if err != nil && !errors.Is(err, io.EOF) {
		if cause := context.Cause(b.ctx); cause != nil {
			err = fmt.Errorf("%w: %w", cause, err)
		}
	}
	return n, err
}

func (b *body) Close() error {
	b.watch.Stop()
	b.cancel(nil)
	return b.ReadCloser.Close()
}
