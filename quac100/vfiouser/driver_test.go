package vfiouser_test

import (
	"bytes"
	"context"
	"encoding/binary"
	"log/slog"
	"os"
	"path/filepath"
	"sync"
	"testing"
	"time"

	"golang.org/x/sys/unix"

	"quantavirt/quac100"
	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/vfiouser"
)

// bus reaches the model through the protocol, with memory files and eventfds, as QEMU does.
type bus struct {
	t      *testing.T
	c      *vfiouser.Client
	events []*os.File
	wait   sync.WaitGroup

	mu   sync.Mutex
	next uint64
	fds  map[uint64]int
}

func (b *bus) Address() string                       { return "vfio-user" }
func (b *bus) ReadConfig(off int64, p []byte) error  { return b.c.ReadConfig(uint64(off), p) }
func (b *bus) WriteConfig(off int64, p []byte) error { return b.c.WriteConfig(uint64(off), p) }

func (b *bus) Read32(r regs.Reg) uint32 {
	var p [4]byte
	if err := b.c.Read(uint64(r), p[:]); err != nil {
		return regs.GoneWord
	}
	return binary.LittleEndian.Uint32(p[:])
}

func (b *bus) Write32(r regs.Reg, v uint32) {
	var p [4]byte
	binary.LittleEndian.PutUint32(p[:], v)
	if err := b.c.Write(uint64(r), p[:]); err != nil {
		b.t.Errorf("write %v: %v", r, err)
	}
}

func (b *bus) AllocDMA(size int) (quac100.Buffer, error) {
	size = (size + 4095) &^ 4095
	fd, mem, err := vfiouser.NewMemfd(size)
	if err != nil {
		return quac100.Buffer{}, err
	}
	b.mu.Lock()
	defer b.mu.Unlock()
	buf := quac100.Buffer{Bytes: mem, IOVA: b.next}
	b.next += uint64(size) + 4096
	b.fds[buf.IOVA] = fd
	return buf, b.c.MapFD(buf.IOVA, uint64(size), fd, 0, true, true)
}

func (b *bus) FreeDMA(buf quac100.Buffer) error {
	b.mu.Lock()
	defer b.mu.Unlock()
	if err := b.c.Unmap(buf.IOVA, uint64(len(buf.Bytes))); err != nil {
		return err
	}
	unix.Close(b.fds[buf.IOVA])
	delete(b.fds, buf.IOVA)
	return unix.Munmap(buf.Bytes)
}

func (b *bus) Interrupts(n int, handle func(vector int)) error {
	if err := b.c.WriteConfig(regs.CfgMSIXControl, []byte{0, 0x80}); err != nil {
		return err
	}
	for v := range n {
		fd, err := unix.Eventfd(0, unix.EFD_CLOEXEC|unix.EFD_NONBLOCK)
		if err != nil {
			return err
		}
		f := os.NewFile(uintptr(fd), "msix")
		b.events = append(b.events, f)
		if err := b.c.SetVector(v, fd); err != nil {
			return err
		}
		b.wait.Go(func() {
			var p [8]byte
			for {
				if _, err := f.Read(p[:]); err != nil {
					return
				}
				handle(v)
			}
		})
	}
	return nil
}

func (b *bus) Reset() error { return b.c.WriteConfig(regs.CfgDevControl, []byte{0, 0x80}) }

func (b *bus) Close() error {
	err := b.c.DisableVectors()
	for _, f := range b.events {
		f.Close()
	}
	b.wait.Wait()
	return err
}

// The driver, the protocol and the model together, twice over one socket: all that QEMU adds is missing.
func TestDriverThroughTheProtocol(t *testing.T) {
	card, err := model.New(model.Config{HostMSIX: true, Serial: 99})
	if err != nil {
		t.Fatal(err)
	}
	defer card.Close()
	path := filepath.Join(t.TempDir(), "card.sock")
	l, err := vfiouser.Listen(path)
	if err != nil {
		t.Fatal(err)
	}
	ctx, cancel := context.WithTimeout(t.Context(), 60*time.Second)
	served := make(chan error, 1)
	go func() { served <- vfiouser.Serve(ctx, l, card, slog.New(slog.DiscardHandler)) }()
	for range 2 {
		drive(ctx, t, path)
	}
	cancel()
	if err := <-served; err != nil {
		t.Error(err)
	}
}

func drive(ctx context.Context, t *testing.T, path string) {
	c, err := vfiouser.Dial(path)
	if err != nil {
		t.Fatal(err)
	}
	defer c.Close()
	b := &bus{t: t, c: c, next: 1 << 30, fds: make(map[uint64]int)}
	d, err := quac100.Open(ctx, b)
	if err != nil {
		t.Fatal(err)
	}
	var p, q [1 << 16]byte
	if err := d.Random(ctx, p[:]); err != nil {
		t.Error(err)
	}
	if err := d.Random(ctx, q[:]); err != nil || p == q {
		t.Errorf("random: %v", err)
	}
	for _, a := range []regs.Alg{regs.MLKEM512, regs.MLKEM768, regs.MLKEM1024} {
		pk, sk, err := d.KEMGenerateKey(ctx, a)
		if err != nil {
			t.Fatal(err)
		}
		ct, k, err := d.KEMEncapsulate(ctx, a, pk)
		if err != nil {
			t.Fatal(err)
		}
		if k2, err := d.KEMDecapsulate(ctx, a, sk, ct); err != nil || !bytes.Equal(k, k2) {
			t.Errorf("%v: %v", a, err)
		}
	}
	if failed, err := d.SelfTest(ctx, regs.TestsAll); err != nil || failed != 0 {
		t.Errorf("self-test: %v %v", failed.Names(), err)
	}
	if info, err := d.Info(ctx); err != nil || info.Serial != 99 {
		t.Errorf("info: %+v %v", info, err)
	}
	var wg sync.WaitGroup
	for range 8 {
		wg.Go(func() {
			var p [64]byte
			for range 100 {
				if err := d.Random(ctx, p[:]); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	wg.Wait()
	if err := d.Close(); err != nil {
		t.Error(err)
	}
	if len(b.fds) != 0 {
		t.Errorf("%d DMA buffers are left", len(b.fds))
	}
}
