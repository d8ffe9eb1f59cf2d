package pqc

import (
	"context"
	"fmt"
	"os"
	"time"
	"unsafe"

	"golang.org/x/sys/unix"

	"quantavirt/internal/qverr"
)

// Each turn gives the kernel this much from the card.
const (
	entropyBytes  = 64
	entropyPeriod = time.Minute
)

// FeedEntropy credits the kernel's pool with randomness of the card, at once
// and then every minute, until ctx ends. Without a card it does nothing: what
// software could give comes from that pool.
func (s *Service) FeedEntropy(ctx context.Context) error {
	random, err := os.OpenFile("/dev/random", os.O_WRONLY, 0)
	if err != nil {
		return qverr.New(qverr.From(err).Code, "feed the kernel's entropy: %w", err)
	}
	defer random.Close()
	tick := time.NewTicker(entropyPeriod)
	defer tick.Stop()
	for {
		s.mu.Lock()
		card := s.card
		s.mu.Unlock()
		if card != nil {
			if err := credit(ctx, card, int(random.Fd())); err != nil {
				s.log.Warn("the kernel's entropy is not fed", "err", err)
			}
		}
		select {
		case <-ctx.Done():
			return nil
		case <-tick.C:
		}
	}
}

// credit is RNDADDENTROPY (random(4)): struct rand_pool_info is the bits of
// entropy, the bytes of the buffer and the buffer.
func credit(ctx context.Context, from Provider, fd int) error {
	const rndAddEntropy = 0x40085203
	var info struct {
		bits, size int32
		buf        [entropyBytes]byte
	}
	if err := from.Random(ctx, info.buf[:]); err != nil {
		return err
	}
	defer clear(info.buf[:])
	info.bits, info.size = 8*entropyBytes, entropyBytes
	if _, _, errno := unix.Syscall(unix.SYS_IOCTL, uintptr(fd), rndAddEntropy, uintptr(unsafe.Pointer(&info))); errno != 0 {
		return fmt.Errorf("RNDADDENTROPY: %w", errno)
	}
	return nil
}
