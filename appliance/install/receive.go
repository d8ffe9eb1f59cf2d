package install

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"io"
	"net/http"
	"os"

	"quantavirt/internal/bundle"
	"quantavirt/internal/qverr"
)

// received is a unified kernel image in a file, and what is known of it besides.
type received struct {
	path    string
	sum     string // its SHA-256, hex; "" if nobody said what it must be
	version string // "" for what the image itself says
	counter uint64 // against going back to older systems
}

// receive writes a system of a known length into a file: a unified kernel image, or
// that of a bundle, which is verified meanwhile. It returns the SHA-256 of all that
// came. Errors of a bundle: those of bundle.NewReader; QV_ERR_UNSUPPORTED: it holds
// nothing for this build.
func (s *Service) receive(body io.Reader, length int64) (got received, digest string, err error) {
	if length > MaxSystem {
		return got, "", qverr.New(qverr.Inval, "the system has %d bytes, at most %d are taken", length, MaxSystem).With("limit_bytes", MaxSystem)
	}
	if free, err := s.Free(); err != nil {
		return got, "", err
	} else if length > free {
		return got, "", qverr.New(qverr.NoSpc, "the system needs %d bytes for the moment, %d are free", length, free)
	}
	if err := os.MkdirAll(s.Spool, 0o700); err != nil {
		return got, "", qverr.New(qverr.IO, "%w", err)
	}
	f, err := os.CreateTemp(s.Spool, "install-*.efi")
	if err != nil {
		return got, "", qverr.New(qverr.IO, "%w", err)
	}
	sum := sha256.New()
	got, err = s.unpack(io.TeeReader(io.LimitReader(body, length), sum), length, f)
	if err = errors.Join(err, f.Close()); err != nil {
		_ = os.Remove(f.Name())
		code := qverr.CodeOf(err)
		if code == qverr.Generic {
			code = qverr.IO
		}
		return received{}, "", qverr.New(code, "receive the system: %w", err).WithHint("%s", qverr.HintOf(err))
	}
	got.path = f.Name()
	return got, hex.EncodeToString(sum.Sum(nil)), nil
}

// unpack writes the system in a stream to f.
func (s *Service) unpack(r io.Reader, length int64, f *os.File) (received, error) {
	head := make([]byte, min(length, int64(len(bundle.Magic))))
	if _, err := io.ReadFull(r, head); err != nil {
		return received{}, err
	}
	r = io.MultiReader(bytes.NewReader(head), r)
	if string(head) != bundle.Magic {
		_, err := io.CopyN(f, r, length)
		return received{}, err
	}
	keys, err := s.Keys()
	if err != nil {
		return received{}, err
	}
	in, err := bundle.NewReader(r, keys)
	if err != nil {
		return received{}, err
	}
	m := in.Manifest()
	want, ok := m.UKI(s.Build)
	if !ok {
		return received{}, qverr.New(qverr.Unsupported, "bundle %s holds nothing for the %s build that runs here", m.Version, s.Build).
			WithHint("take a bundle that was made for this kind of machine")
	}
	for {
		file, err := in.Next()
		if errors.Is(err, io.EOF) {
			return received{sum: want.SHA256, version: m.Version, counter: m.Counter}, nil
		}
		if err != nil {
			return received{}, err
		}
		to := io.Discard
		if file == want {
			to = f
		}
		if err := in.Copy(to); err != nil {
			return received{}, err
		}
	}
}

func (s *Service) download(ctx context.Context, src Source) (got received, err error) {
	ctx, cancel := context.WithTimeout(ctx, downloadLimit)
	defer cancel()
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, src.URL, nil)
	if err != nil {
		return got, qverr.New(qverr.Inval, "%w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return got, qverr.New(qverr.IO, "download the system: %w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	if resp.StatusCode != http.StatusOK || resp.ContentLength <= 0 {
		return got, qverr.New(qverr.IO, "download %s: %s, %d bytes", src.URL, resp.Status, resp.ContentLength)
	}
	got, digest, err := s.receive(resp.Body, resp.ContentLength)
	if err == nil && src.SHA256 != "" && digest != src.SHA256 {
		_ = os.Remove(got.path)
		err = qverr.New(qverr.Inval, "%s has the SHA-256 %s, not %s", src.URL, digest, src.SHA256)
	}
	return got, err
}
