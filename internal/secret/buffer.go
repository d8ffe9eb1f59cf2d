package secret

import (
	"sync"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Buffer is memory for a secret: whole pages of its own, outside Go's heap. Its
// owner wipes it: no finalizer does, which could come while Bytes are in use.
type Buffer struct {
	mu    sync.Mutex
	pages []byte // nil once it is wiped
	n     int
}

// New makes a Buffer of n zero bytes, which Wipe gives back. QV_ERR_NOMEM: there is no
// memory, or no more that may be locked.
func New(n int) (*Buffer, error) {
	page := unix.Getpagesize()
	size := max(page, (n+page-1)/page*page)
	pages, err := hidden(size)
	if err != nil {
		pages, err = locked(size)
	}
	if err != nil {
		return nil, err
	}
	// Neither is refused for memory of this kind (madvise(2)).
	_ = unix.Madvise(pages, unix.MADV_DONTDUMP)
	_ = unix.Madvise(pages, unix.MADV_DONTFORK)
	return &Buffer{pages: pages, n: n}, nil
}

// hidden is memory that only this process reaches, not even the kernel by its own
// mappings, that is never swapped, and that the kernel wipes when it is let go, also when
// the process is killed (memfd_secret(2)). Not every kernel has it.
func hidden(size int) ([]byte, error) {
	fd, err := unix.MemfdSecret(unix.O_CLOEXEC)
	if err != nil {
		return nil, err
	}
	defer func() { _ = unix.Close(fd) }()
	if err := unix.Ftruncate(fd, int64(size)); err != nil {
		return nil, err
	}
	return unix.Mmap(fd, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_SHARED)
}

// locked is memory that is not swapped.
func locked(size int) ([]byte, error) {
	pages, err := unix.Mmap(-1, 0, size, unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, qverr.New(qverr.NoMem, "memory for a secret: %w", err)
	}
	if err := unix.Mlock(pages); err != nil {
		_ = unix.Munmap(pages)
		return nil, qverr.New(qverr.NoMem, "lock memory for a secret: %w", err)
	}
	return pages, nil
}

// Take makes a Buffer of a secret, and wipes where it was.
func Take(from []byte) (*Buffer, error) {
	b, err := New(len(from))
	if err != nil {
		return nil, err
	}
	copy(b.Bytes(), from)
	clear(from)
	return b, nil
}

// Bytes are the secret itself; nil once it is wiped. They must not be used after
// Wipe: the memory is no longer there.
func (b *Buffer) Bytes() []byte {
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pages == nil {
		return nil
	}
	return b.pages[:b.n:b.n]
}

// Wipe overwrites the secret and gives the memory back. It may be called twice, and
// on a nil Buffer.
func (b *Buffer) Wipe() {
	if b == nil {
		return
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	if b.pages == nil {
		return
	}
	clear(b.pages)
	_ = unix.Munmap(b.pages)
	b.pages = nil
}
