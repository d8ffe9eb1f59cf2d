package process

import (
	"context"
	"errors"
	"io"
	"net"
	"sync"

	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/qverr"
)

// memoryRing is the size of a console's ring that has no file.
const memoryRing = 16 << 10

// console is one console of the guest: what it prints goes into a ring, from
// where everybody who is attached reads at his own pace.
type console struct {
	ring *ring.Ring

	mu    sync.Mutex
	input io.Writer // set once the device exists
}

func (c *console) setInput(w io.Writer) {
	c.mu.Lock()
	defer c.mu.Unlock()
	c.input = w
}

// typeIn types p into the guest; what the guest has no room for is lost.
func (c *console) typeIn(p []byte) error {
	c.mu.Lock()
	w := c.input
	c.mu.Unlock()
	if w == nil {
		return nil
	}
	if _, err := w.Write(p); err != nil && !errors.Is(err, qverr.Again) {
		return err
	}
	return nil
}

// attach serves one connection until either side ends: in has what the caller
// types, the ring goes to conn.
func (c *console) attach(conn net.Conn, in io.Reader) {
	ctx, cancel := context.WithCancel(context.Background())
	var wg sync.WaitGroup
	wg.Go(func() {
		// Closing ends the other direction too.
		defer conn.Close()
		c.copyOut(ctx, conn)
	})
	buf := make([]byte, 512)
	for {
		n, err := in.Read(buf)
		if n > 0 {
			if c.typeIn(buf[:n]) != nil {
				break
			}
		}
		if err != nil {
			break
		}
	}
	cancel()
	wg.Wait()
}

func (c *console) copyOut(ctx context.Context, w io.Writer) {
	f := c.ring.Follow()
	buf := make([]byte, 4096)
	for {
		n, err := f.Read(ctx, buf)
		if n > 0 {
			if _, err := w.Write(buf[:n]); err != nil {
				return
			}
		}
		if err != nil {
			return
		}
	}
}
