package storage

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"errors"
	"hash"
	"io"
	"os"
	"syscall"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/durable"
	"quantavirt/internal/qverr"
)

const (
	// blockSize is the grain in which zeroes are left out.
	blockSize = 64 << 10
	bufSize   = 16 * blockSize
)

// checker looks at what is uploaded: at its beginning as soon as that is there,
// so that no gigabytes come in for nothing, and at all of it in the end.
type checker struct {
	head  func(p []byte) error
	whole func(r io.ReaderAt) error // has the name to itself
}

// kernelHead tells an ELF file and a bzImage (the x86 boot protocol has "HdrS"
// at 0x202) from everything else.
func kernelHead(p []byte) error {
	const magicAt = 0x202
	if bytes.HasPrefix(p, []byte("\x7fELF")) || len(p) > magicAt && bytes.HasPrefix(p[magicAt:], []byte("HdrS")) {
		return nil
	}
	return qverr.New(qverr.Inval, "what is uploaded is no Linux kernel: neither a bzImage nor an ELF file")
}

var zeroes [blockSize]byte

// UploadImage stores length bytes of body as an image. A kernel that is none
// is refused as soon as its head is there.
func (s *Service) UploadImage(ctx context.Context, id string, kind spec.ImageKind, body io.Reader, length int64) (spec.Image, error) {
	var check *checker
	unpacked := false
	if kind == spec.ImageKindKernel {
		check = &checker{head: kernelHead, whole: func(r io.ReaderAt) error {
			err := s.Kernels.Check(r)
			if err == nil {
				unpacked = s.unpack(id, r)
			}
			return err
		}}
	}
	image := spec.Image{ID: id, Kind: kind, SizeBytes: length}
	err := s.receive(ctx, KindImage, id, body, length, length, check, func(sum string) error {
		image.Sha256, image.CreatedAt = sum, time.Now().UTC()
		return s.db.Put(store.Images, id, image)
	}, func() { s.images[id] = image })
	if err != nil {
		if unpacked {
			s.removeUnpacked(id)
		}
		return spec.Image{}, err
	}
	return s.Image(id)
}

// UploadDisk stores length bytes of body as a raw disk of size bytes, 0 for the
// length rounded up to sectors of 512 bytes.
func (s *Service) UploadDisk(ctx context.Context, name string, body io.Reader, length, size int64) (spec.Disk, error) {
	if size == 0 {
		size = (length + 511) &^ 511
	}
	if size < length || size%512 != 0 {
		return spec.Disk{}, qverr.New(qverr.Inval, "a disk of %d bytes cannot hold %d bytes in whole sectors of 512", size, length).
			With("parameter", "size")
	}
	disk := spec.Disk{Name: name, Format: spec.DiskFormatRaw, SizeBytes: size}
	err := s.receive(ctx, KindDisk, name, body, length, size, nil, func(sum string) error {
		disk.Sha256, disk.CreatedAt = sum, time.Now().UTC()
		return s.db.Put(store.Disks, name, disk)
	}, func() { s.disks[name] = disk })
	if err != nil {
		return spec.Disk{}, err
	}
	return s.Disk(name)
}

// CreateDisk makes an empty raw disk. It takes no space until it is written to,
// but must fit into what is free now.
func (s *Service) CreateDisk(ctx context.Context, in spec.DiskCreate) (spec.Disk, error) {
	size := int64(in.Size)
	switch {
	case in.Format != "" && in.Format != spec.DiskFormatRaw:
		return spec.Disk{}, qverr.New(qverr.Unsupported, "disks of format %s do not exist yet", in.Format).With("path", "format")
	case size < 512 || size%512 != 0:
		return spec.Disk{}, qverr.New(qverr.Config, "size is %d bytes, not one or more sectors of 512", size).With("path", "size")
	}
	free, err := s.Free()
	if err != nil {
		return spec.Disk{}, err
	}
	if size > free {
		return spec.Disk{}, noSpace(KindDisk, in.Name, size, free)
	}
	disk := spec.Disk{Name: in.Name, Format: spec.DiskFormatRaw, SizeBytes: size}
	err = s.receive(ctx, KindDisk, in.Name, bytes.NewReader(nil), 0, size, nil, func(string) error {
		disk.CreatedAt = time.Now().UTC()
		return s.db.Put(store.Disks, in.Name, disk)
	}, func() { s.disks[in.Name] = disk })
	if err != nil {
		return spec.Disk{}, err
	}
	return s.Disk(in.Name)
}

func noSpace(kind Kind, name string, need, free int64) error {
	return qverr.New(qverr.NoSpc, "%s %s needs %d bytes, %d are free", kind, name, need, free).
		With("needed_bytes", need).With("free_bytes", free)
}

// receive is the way of every new file: claim the name and the space, write
// under a temporary name, record, rename, publish. commit stores the record,
// publish runs under the lock.
func (s *Service) receive(ctx context.Context, kind Kind, name string, body io.Reader, length, size int64,
	check *checker, commit func(sum string) error, publish func()) (err error) {
	if err := s.claim(kind, name, length); err != nil {
		return err
	}
	left := length
	defer func() { s.unclaim(kind, name, left) }()
	f, err := os.CreateTemp(s.folder(kind), tempPrefix+"*")
	if err != nil {
		return qverr.New(qverr.StrIO, "%s %s: %w", kind, name, err)
	}
	temp := f.Name()
	defer func() {
		_ = f.Close()
		if err != nil {
			_ = os.Remove(temp)
		}
	}()
	in := &incoming{ctx: ctx, body: body, f: f, sum: sha256.New(), length: length, used: func(n int64) {
		left -= n
		s.used(n)
	}}
	if check != nil {
		in.head = check.head
	}
	if err := in.copy(); err != nil {
		return uploadError(kind, name, err)
	}
	if err := finish(f, size); err != nil {
		return uploadError(kind, name, err)
	}
	if check != nil {
		if err := check.whole(f); err != nil {
			return err
		}
	}
	if err := commit(hex.EncodeToString(in.sum.Sum(nil))); err != nil {
		return err
	}
	if err := os.Rename(temp, s.path(kind, name)); err != nil {
		return errors.Join(qverr.New(qverr.StrIO, "%s %s: %w", kind, name, err), s.db.Delete(bucketOf(kind), name))
	}
	// Without this a power cut takes the name back, and Open then forgets the record.
	if err := durable.SyncDir(s.folder(kind)); err != nil {
		return errors.Join(qverr.New(qverr.StrIO, "%s %s: %w", kind, name, err), os.Remove(s.path(kind, name)), s.db.Delete(bucketOf(kind), name))
	}
	s.mu.Lock()
	defer s.mu.Unlock()
	publish()
	return nil
}

func bucketOf(kind Kind) store.Bucket {
	if kind == KindImage {
		return store.Images
	}
	return store.Disks
}

func finish(f *os.File, size int64) error {
	if err := f.Truncate(size); err != nil {
		return err
	}
	if err := f.Chmod(0o600); err != nil {
		return err
	}
	return f.Sync()
}

// claim takes name and space, or says why it cannot.
func (s *Service) claim(kind Kind, name string, length int64) error {
	if err := checkName(name); err != nil {
		return err
	}
	limit := s.ramLimit()
	s.mu.Lock()
	defer s.mu.Unlock()
	_, isImage := s.images[name]
	_, isDisk := s.disks[name]
	k := key(kind, name)
	switch {
	case kind == KindImage && isImage, kind == KindDisk && isDisk:
		return qverr.New(qverr.Exist, "there is already %s %s", kind, name)
	case s.pending[k]:
		return qverr.New(qverr.Busy, "%s %s is being uploaded", kind, name)
	}
	free, err := s.free(limit)
	if err != nil {
		return err
	}
	if length > free {
		return noSpace(kind, name, length, free)
	}
	if _, err := os.Lstat(s.path(kind, name)); err == nil {
		return qverr.New(qverr.Exist, "a file that the node does not know is in the way of %s %s", kind, name)
	}
	s.pending[k] = true
	s.reserved += length
	return nil
}

func (s *Service) used(n int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	s.reserved -= n
}

func (s *Service) unclaim(kind Kind, name string, left int64) {
	s.mu.Lock()
	defer s.mu.Unlock()
	delete(s.pending, key(kind, name))
	s.reserved -= left
}

func uploadError(kind Kind, name string, err error) error {
	var coded *qverr.Error
	switch {
	case errors.As(err, &coded):
		return err
	case errors.Is(err, syscall.ENOSPC):
		return qverr.New(qverr.NoSpc, "%s %s: the volume is full: %w", kind, name, err)
	}
	return qverr.New(qverr.StrIO, "%s %s: %w", kind, name, err)
}

// incoming copies a body into a file.
type incoming struct {
	ctx    context.Context
	body   io.Reader
	f      *os.File
	sum    hash.Hash
	length int64
	head   func(p []byte) error // looks at the first piece
	used   func(int64)
}

func (in *incoming) copy() error {
	buf := make([]byte, min(bufSize, max(in.length, 1)))
	var done int64
	for done < in.length {
		want := min(int64(len(buf)), in.length-done)
		n, err := io.ReadFull(in.body, buf[:want])
		if err == nil {
			err = in.ctx.Err()
		}
		if err != nil {
			return qverr.New(qverr.IO, "the upload was cut after %d of %d bytes: %w", done+int64(n), in.length, err)
		}
		if done == 0 && in.head != nil {
			if err := in.head(buf[:n]); err != nil {
				return err
			}
		}
		if err := in.write(buf[:n], done); err != nil {
			return err
		}
		done += int64(n)
		in.used(int64(n))
	}
	return nil
}

func (in *incoming) write(p []byte, offset int64) error {
	_, _ = in.sum.Write(p)
	return writeSparse(in.f, p, offset)
}

// writeSparse leaves out whole blocks of zeroes.
func writeSparse(f *os.File, p []byte, offset int64) error {
	for len(p) > 0 {
		n := min(len(p), blockSize)
		if !bytes.Equal(p[:n], zeroes[:n]) {
			if _, err := f.WriteAt(p[:n], offset); err != nil {
				return err
			}
		}
		p, offset = p[n:], offset+int64(n)
	}
	return nil
}
