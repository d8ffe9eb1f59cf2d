package block

import (
	"errors"
	"os"
	"sync"
	"sync/atomic"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Cache says how writes reach the host's disk.
type Cache string

// The cache modes.
const (
	CacheWriteback    Cache = "writeback"    // the host's page cache; Flush makes durable
	CacheWritethrough Cache = "writethrough" // every write is durable when it returns
	CacheNone         Cache = "none"         // O_DIRECT, past the page cache, where the file system can
)

// Options of a raw disk.
type Options struct {
	ReadOnly bool
	Cache    Cache // "" means CacheWriteback
}

// maxVec is IOV_MAX of Linux.
const maxVec = 1024

// Raw is a disk whose bytes are those of a file or of a block device.
type Raw struct {
	file     *os.File
	fd       int
	size     int64
	readOnly bool
	sync     bool // each write is durable by itself
	align    int  // of memory and offsets for O_DIRECT; 1 without it

	inMemory bool        // the file system is memory: nothing of it takes long
	noCached atomic.Bool // the file system cannot tell what it has in its cache
	noPunch  atomic.Bool // the file system cannot punch holes
	noZero   atomic.Bool // nor zero ranges
	bounceMu sync.Mutex
	bounce   []byte // aligned memory for requests that O_DIRECT cannot take
}

// OpenRaw makes a disk of an open file and takes the file over. The file's locks
// are the caller's business (Lock). A size that is not a multiple of SectorSize
// is rounded down.
func OpenRaw(file *os.File, opts Options) (*Raw, error) {
	r := &Raw{file: file, readOnly: opts.ReadOnly, align: 1}
	r.fd = int(file.Fd())
	if err := r.stat(); err != nil {
		return nil, err
	}
	r.inMemory = onMemory(r.fd)
	flags, err := unix.FcntlInt(uintptr(r.fd), unix.F_GETFL, 0)
	if err != nil {
		return nil, qverr.New(qverr.StrOpen, "open disk %s: %w", file.Name(), err)
	}
	if mode := flags & unix.O_ACCMODE; !opts.ReadOnly && mode != unix.O_RDWR {
		return nil, qverr.New(qverr.StrReadonly, "disk %s was opened without the right to write", file.Name())
	}
	switch opts.Cache {
	case "", CacheWriteback:
	case CacheWritethrough:
		r.sync = true
	case CacheNone:
		r.direct(flags)
	default:
		return nil, qverr.New(qverr.Inval, "disk %s: cache mode %q is unknown", file.Name(), opts.Cache)
	}
	return r, nil
}

func (r *Raw) stat() error {
	var st unix.Stat_t
	if err := unix.Fstat(r.fd, &st); err != nil {
		return qverr.New(qverr.StrOpen, "open disk %s: %w", r.file.Name(), err)
	}
	switch st.Mode & unix.S_IFMT {
	case unix.S_IFREG:
		r.size = st.Size
	case unix.S_IFBLK:
		var size uint64
		if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(r.fd), unix.BLKGETSIZE64,
			uintptr(unsafe.Pointer(&size))); errno != 0 {
			return qverr.New(qverr.StrOpen, "size of disk %s: %w", r.file.Name(), errno)
		}
		r.size = int64(size)
	default:
		return qverr.New(qverr.StrOpen, "disk %s is neither a file nor a block device", r.file.Name())
	}
	r.size -= r.size % SectorSize
	if r.size <= 0 {
		return qverr.New(qverr.StrFormat, "disk %s is empty", r.file.Name())
	}
	return nil
}

// direct turns O_DIRECT on if whole sectors can go through it. A guest may write
// any sector: with a larger unit than a sector, the page cache is right.
func (r *Raw) direct(flags int) {
	var stx unix.Statx_t
	const want = unix.STATX_DIOALIGN
	err := unix.Statx(r.fd, "", unix.AT_EMPTY_PATH, want, &stx)
	if err != nil || stx.Mask&want == 0 || stx.Dio_offset_align == 0 || stx.Dio_offset_align > SectorSize ||
		stx.Dio_mem_align > 4096 {
		return
	}
	if _, err := unix.FcntlInt(uintptr(r.fd), unix.F_SETFL, flags|unix.O_DIRECT); err != nil {
		return
	}
	r.align = int(max(stx.Dio_offset_align, stx.Dio_mem_align))
}

// Direct tells whether the disk goes past the host's page cache.
func (r *Raw) Direct() bool { return r.align > 1 }

// Size implements Device.
func (r *Raw) Size() int64 { return r.size }

// Close implements Device.
func (r *Raw) Close() error {
	if err := r.file.Close(); err != nil {
		return storageError(err, "close disk %s", r.file.Name())
	}
	return nil
}

// ReadVec implements Device.
func (r *Raw) ReadVec(iov [][]byte, off int64) error {
	return r.transfer(&Request{Op: OpRead, IOV: iov, Off: off})
}

// WriteVec implements Device.
func (r *Raw) WriteVec(iov [][]byte, off int64) error {
	return r.transfer(&Request{Op: OpWrite, IOV: iov, Off: off})
}

// transfer does a read or write.
func (r *Raw) transfer(req *Request) error {
	if err := r.check(req); err != nil {
		return err
	}
	switch {
	case r.aligned(req.IOV, req.Off):
		return r.do(req)
	case req.Op == OpRead:
		return r.readBounced(req.IOV, req.Off)
	}
	return r.writeBounced(req)
}

// advance drops the first n bytes of iov without changing the caller's slices.
func advance(iov [][]byte, n int) [][]byte {
	for len(iov) > 0 && n >= len(iov[0]) {
		n -= len(iov[0])
		iov = iov[1:]
	}
	if n > 0 {
		rest := make([][]byte, len(iov))
		copy(rest, iov)
		rest[0] = rest[0][n:]
		return rest
	}
	return iov
}

// Flush implements Device.
func (r *Raw) Flush() error {
	if r.readOnly {
		return nil
	}
	for {
		err := unix.Fdatasync(r.fd)
		if err == nil {
			return nil
		}
		if !errors.Is(err, unix.EINTR) {
			return storageError(err, "flush disk %s", r.file.Name())
		}
	}
}

func (r *Raw) writable() error {
	if r.readOnly {
		return qverr.New(qverr.StrReadonly, "disk %s is read-only", r.file.Name())
	}
	return nil
}
