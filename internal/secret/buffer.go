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
	pages, err := unix.Mmap(-1, 0, max(page, (n+page-1)/page*page), unix.PROT_READ|unix.PROT_WRITE, unix.MAP_PRIVATE|unix.MAP_ANONYMOUS)
	if err != nil {
		return nil, qverr.New(qverr.NoMem, "memory for a secret: %w", err)
	}
	if err := unix.Mlock(pages); err != nil {
		_ = unix.Munmap(pages)
		return nil, qverr.New(qverr.NoMem, "lock memory for a secret: %w", err)
	}
	// Neither is refused for memory of this kind (madvise(2)).
	_ = unix.Madvise(pages, unix.MADV_DONTDUMP)
	_ = unix.Madvise(pages, unix.MADV_DONTFORK)
	return &Buffer{pages: pages, n: n}, nil
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
