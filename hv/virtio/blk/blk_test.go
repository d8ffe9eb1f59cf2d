package blk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"math/rand/v2"
	"os"
	"path/filepath"
	"testing"

	"quantavirt/hv/block"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/blk"
	"quantavirt/hv/virtio/internal/driver"
)

const (
	in, out, flush, getID, discard, writeZeroes = 0, 1, 4, 8, 11, 13

	ok, ioErr, unsupported = 0, 1, 2
)

const diskSize = 4 << 20

func newDisk(t testing.TB, opts blk.Options) (*driver.Driver, *blk.Device, string) {
	t.Helper()
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, nil, 0o600); err != nil {
		t.Fatal(err)
	}
	if err := os.Truncate(path, diskSize); err != nil {
		t.Fatal(err)
	}
	f, err := os.OpenFile(path, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	raw, err := block.OpenRaw(f, block.Options{ReadOnly: opts.ReadOnly})
	if err != nil {
		t.Fatal(err)
	}
	dev, err := blk.New(raw, opts)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { raw.Close() }) // after the driver's
	d := driver.New(t, dev, driver.NewMemory(t))
	return d, dev, path
}

func header(kind uint32, sector uint64) []byte {
	b := binary.LittleEndian.AppendUint32(nil, kind)
	b = binary.LittleEndian.AppendUint32(b, 0)
	return binary.LittleEndian.AppendUint64(b, sector)
}

// do makes one request and returns its status.
func do(d *driver.Driver, queue int, kind uint32, sector uint64, buffers ...driver.Buffer) byte {
	d.TB.Helper()
	q := d.Queues[queue]
	status := q.In(1)
	list := append([]driver.Buffer{q.Out(header(kind, sector))}, buffers...)
	q.Do(append(list, status)...)
	return q.Bytes(status)[0]
}

func ranges(segments ...[3]uint64) []byte {
	var b []byte
	for _, s := range segments {
		b = binary.LittleEndian.AppendUint64(b, s[0])
		b = binary.LittleEndian.AppendUint32(b, uint32(s[1]))
		b = binary.LittleEndian.AppendUint32(b, uint32(s[2]))
	}
	return b
}

func TestReadWriteFlush(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx | virtio.FeatureIndirect} {
		d, dev, path := newDisk(t, blk.Options{Serial: "disk-0", Queues: 2})
		d.Start(features)
		data := make([]byte, 8192)
		for i := range data {
			data[i] = byte(rand.Uint32())
		}
		if s := do(d, 0, out, 16, d.Queues[0].Out(data[:512]), d.Queues[0].Out(data[512:])); s != ok {
			t.Fatalf("write: status %d", s)
		}
		if s := do(d, 1, flush, 0); s != ok {
			t.Fatalf("flush: status %d", s)
		}
		got := d.Queues[1].In(8192)
		if s := do(d, 1, in, 16, got); s != ok {
			t.Fatalf("read: status %d", s)
		}
		if !bytes.Equal(d.Queues[1].Bytes(got), data) {
			t.Fatal("read differs from write")
		}
		file, err := os.ReadFile(path)
		if err != nil || !bytes.Equal(file[16*512:16*512+8192], data) {
			t.Fatalf("file differs (%v)", err)
		}
		id := d.Queues[0].In(20)
		if s := do(d, 0, getID, 0, id); s != ok || !bytes.HasPrefix(d.Queues[0].Bytes(id), []byte("disk-0\x00")) {
			t.Fatalf("id %q, status %d", d.Queues[0].Bytes(id), s)
		}
		s := dev.Stats()
		if s.Reads != 1 || s.ReadBytes != 8192 || s.Writes != 1 || s.WriteBytes != 8192 || s.Flushes != 1 || s.Errors != 0 {
			t.Fatalf("%+v", s)
		}
		total := uint64(0)
		for _, n := range s.Latency.Buckets {
			total += n
		}
		if total != 4 || s.Latency.Max <= 0 || s.Latency.Sum < s.Latency.Max {
			t.Fatalf("latency %+v", s.Latency)
		}
	}
}

func TestIndirect(t *testing.T) {
	d, _, _ := newDisk(t, blk.Options{})
	d.Start(virtio.FeatureIndirect)
	q := d.Queues[0]
	status := q.In(1)
	list := []driver.Buffer{q.Out(header(out, 0))}
	for range 100 {
		list = append(list, q.Out(bytes.Repeat([]byte{0x5a}, 512)))
	}
	q.AddIndirect(append(list, status)...)
	q.Kick()
	q.Wait()
	if s := q.Bytes(status)[0]; s != ok {
		t.Fatalf("status %d", s)
	}
	got := q.In(512)
	if s := do(d, 0, in, 99, got); s != ok || q.Bytes(got)[511] != 0x5a {
		t.Fatalf("read back: status %d", s)
	}
}

// TestRefused walks through everything a guest can get wrong in a request that
// is well-formed for the queue.
func TestRefused(t *testing.T) {
	const sectors = diskSize / 512
	d, dev, _ := newDisk(t, blk.Options{Discard: true})
	d.Start(0)
	q := d.Queues[0]
	for _, tc := range []struct {
		name   string
		kind   uint32
		sector uint64
		buffer []driver.Buffer
		want   byte
	}{
		{"last sector", in, sectors - 1, []driver.Buffer{q.In(512)}, ok},
		{"over the end", in, sectors - 1, []driver.Buffer{q.In(1024)}, ioErr},
		{"past the end", out, sectors, []driver.Buffer{q.Out(make([]byte, 512))}, ioErr},
		{"sector that wraps", out, 1 << 63, []driver.Buffer{q.Out(make([]byte, 512))}, ioErr},
		{"sector times 512 wraps", in, 1 << 55, []driver.Buffer{q.In(512)}, ioErr},
		{"half a sector", in, 0, []driver.Buffer{q.In(100)}, ioErr},
		{"unknown type", 77, 0, nil, unsupported},
		{"discard", discard, 0, []driver.Buffer{q.Out(ranges([3]uint64{0, 8, 0}))}, ok},
		{"discard with unmap flag", discard, 0, []driver.Buffer{q.Out(ranges([3]uint64{0, 8, 1}))}, unsupported},
		{"discard past the end", discard, 0, []driver.Buffer{q.Out(ranges([3]uint64{0, 8, 0}, [3]uint64{sectors, 1, 0}))}, ioErr},
		{"discard of too much", discard, 0, []driver.Buffer{q.Out(ranges([3]uint64{0, 1<<32 - 1, 0}))}, ioErr},
		{"discard without ranges", discard, 0, nil, ioErr},
		{"discard with half a range", discard, 0, []driver.Buffer{q.Out(make([]byte, 24))}, ioErr},
		{"discard with many ranges", discard, 0, []driver.Buffer{q.Out(make([]byte, 17*16))}, ioErr},
		{"zeroes", writeZeroes, 0, []driver.Buffer{q.Out(ranges([3]uint64{0, 8, 1}, [3]uint64{8, 8, 0}))}, ok},
		{"zeroes with unknown flag", writeZeroes, 0, []driver.Buffer{q.Out(ranges([3]uint64{0, 8, 2}))}, unsupported},
	} {
		if s := do(d, 0, tc.kind, tc.sector, tc.buffer...); s != tc.want {
			t.Errorf("%s: status %d, want %d", tc.name, s, tc.want)
		}
	}
	if dev.Stats().Errors == 0 || !d.Transport.Ready() {
		t.Fatal("errors are not counted, or the device stopped")
	}
}

func TestNoPlaceForStatus(t *testing.T) {
	for name, buffers := range map[string]func(q *driver.Queue) []driver.Buffer{
		"no status":    func(q *driver.Queue) []driver.Buffer { return []driver.Buffer{q.Out(header(flush, 0))} },
		"short header": func(q *driver.Queue) []driver.Buffer { return []driver.Buffer{q.Out(make([]byte, 15)), q.In(1)} },
	} {
		d, _, _ := newDisk(t, blk.Options{})
		d.Start(0)
		q := d.Queues[0]
		q.Add(buffers(q)...)
		q.Kick()
		if !d.Broken() || d.Transport.Ready() || len(d.Logs()) != 1 || !errors.Is(d.Logs()[0], virtio.ErrDriver) {
			t.Errorf("%s: status %#x, logs %v", name, d.Status(), d.Logs())
		}
		d.Start(0) // a reset repairs it
		if s := do(d, 0, flush, 0); s != ok {
			t.Errorf("%s: after reset: status %d", name, s)
		}
	}
}

func TestReadOnly(t *testing.T) {
	d, _, _ := newDisk(t, blk.Options{ReadOnly: true, Discard: true})
	const featureReadOnly, featureFlush, featureDiscard, featureZeroes = 1 << 5, 1 << 9, 1 << 13, 1 << 14
	if f := d.Offered(); f&featureReadOnly == 0 || f&(featureFlush|featureDiscard|featureZeroes) != 0 {
		t.Fatalf("features %#x", f)
	}
	d.Start(featureReadOnly)
	if s := do(d, 0, out, 0, d.Queues[0].Out(make([]byte, 512))); s != ioErr {
		t.Fatalf("write: status %d", s)
	}
	if s := do(d, 0, in, 0, d.Queues[0].In(512)); s != ok {
		t.Fatalf("read: status %d", s)
	}
}

func TestConfigSpace(t *testing.T) {
	d, _, _ := newDisk(t, blk.Options{Queues: 3})
	if c := d.Read(4, 0, 4) | d.Read(4, 4, 4)<<32; c != diskSize/512 {
		t.Errorf("capacity %d", c)
	}
	if n := d.Read(4, 34, 2); n != 3 {
		t.Errorf("%d queues", n)
	}
	if v := d.Read(4, 60, 4) | d.Read(4, 0xffc, 4); v != 0 {
		t.Errorf("behind the configuration: %#x", v)
	}
	if n := d.Read(1, 18, 2); n != 3 {
		t.Errorf("transport has %d queues", n)
	}
}

// gatedDisk lets a test hold requests.
type gatedDisk struct {
	block.Device
	entered chan struct{}
	release chan struct{}
}

func (g *gatedDisk) ReadVec(iov [][]byte, off int64) error {
	g.entered <- struct{}{}
	<-g.release
	return g.Device.ReadVec(iov, off)
}

func TestParallelAndPause(t *testing.T) {
	f, err := os.Create(filepath.Join(t.TempDir(), "disk"))
	if err != nil {
		t.Fatal(err)
	}
	if err := f.Truncate(diskSize); err != nil {
		t.Fatal(err)
	}
	raw, err := block.OpenRaw(f, block.Options{})
	if err != nil {
		t.Fatal(err)
	}
	defer raw.Close()
	gated := &gatedDisk{raw, make(chan struct{}, 16), make(chan struct{})}
	dev, err := blk.New(gated, blk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := driver.New(t, dev, driver.NewMemory(t))
	d.Start(0)
	q := d.Queues[0]
	const n = 8
	for range n {
		q.Add(q.Out(header(in, 0)), q.In(512), q.In(1))
	}
	q.Kick()
	for range n {
		<-gated.entered // all are worked on at once
	}
	paused := make(chan error)
	go func() { paused <- d.Transport.Pause() }()
	select {
	case <-paused:
		t.Fatal("paused while requests touch guest memory")
	default:
	}
	close(gated.release)
	if err := <-paused; err != nil {
		t.Fatal(err)
	}
	for range n {
		q.Wait()
	}
	// While it is paused nothing is taken.
	q.Add(q.Out(header(in, 0)), q.In(512), q.In(1))
	q.Kick()
	d.Interrupted(1, 50) // an earlier one may come late
	if _, _, done := q.Done(); done || len(gated.entered) != 0 {
		t.Fatal("a request was worked on during the pause")
	}
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	q.Wait()
	// A reset ends a paused device too.
	if err := d.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	q.Add(q.Out(header(in, 0)), q.In(512), q.In(1))
	q.Kick()
	d.SetStatus(0)
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	d.Start(0)
	if s := do(d, 0, flush, 0); s != ok {
		t.Fatalf("after reset: status %d", s)
	}
}

func TestBadOptions(t *testing.T) {
	for _, o := range []blk.Options{{Queues: -1}, {Queues: 65}, {Serial: "123456789012345678901"}} {
		if _, err := blk.New(nil, o); err == nil {
			t.Errorf("%+v was accepted", o)
		}
	}
}
