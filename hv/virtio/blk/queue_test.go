package blk_test

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"os"
	"path/filepath"
	"runtime"
	"sync"
	"sync/atomic"
	"testing"
	"time"

	"quantavirt/hv/block"
	"quantavirt/hv/limit"
	"quantavirt/hv/virtio"
	"quantavirt/hv/virtio/blk"
	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/internal/qverr"
)

// traffic keeps all request slots of one queue busy with writes that are read back.
type traffic struct {
	d           *driver.Driver
	q           *driver.Queue
	base        uint64 // first sector
	data, check [][3]driver.Buffer
}

const blockSize = 4096

// Without FLUSH a driver's writes are durable, each by itself.
const featureFlush, featureConfigWCE = 1 << 9, 1 << 11

func newTraffic(d *driver.Driver, queue, depth int) *traffic {
	t := &traffic{d: d, q: d.Queues[queue], base: uint64(queue*depth) * blockSize / 512}
	for i := range depth {
		sector := t.base + uint64(i)*blockSize/512
		t.data = append(t.data, [3]driver.Buffer{t.q.Out(header(out, sector)), t.q.Out(make([]byte, blockSize)), t.q.In(1)})
		t.check = append(t.check, [3]driver.Buffer{t.q.Out(header(in, sector)), t.q.In(blockSize), t.q.In(1)})
	}
	return t
}

// round writes all blocks, and reads them back.
func (t *traffic) round(n int, verify bool) error {
	word := binary.LittleEndian.AppendUint64(nil, 0)
	for i := range t.data {
		binary.LittleEndian.PutUint64(word, t.base<<32|uint64(n)<<16|uint64(i))
		if err := t.d.Mem.WriteAt(word, t.data[i][1].Addr); err != nil {
			return err
		}
	}
	for _, list := range [][][3]driver.Buffer{t.data, t.check} {
		for i := range list {
			t.q.Add(list[i][:]...)
		}
		t.q.Kick()
		for range list {
			t.q.Wait()
		}
	}
	if !verify {
		return nil
	}
	for i := range t.check {
		s, err := t.d.Mem.Slice(t.check[i][1].Addr, 8)
		if err != nil {
			return err
		}
		if got := binary.LittleEndian.Uint64(s); got != t.base<<32|uint64(n)<<16|uint64(i) || t.q.Bytes(t.check[i][2])[0] != ok {
			return fmt.Errorf("block %d of round %d at sector %d reads %#x", i, n, t.base, got)
		}
	}
	return nil
}

// TestQueuesAtOnce has four queues busy while the device is paused and resumed and
// its limits change. With -race it also shows that queues share nothing.
func TestQueuesAtOnce(t *testing.T) {
	const queues, depth, rounds = 4, 32, 30
	d, dev, _ := newDisk(t, blk.Options{Queues: queues})
	d.Start(virtio.FeatureEventIdx | featureFlush)
	stop := make(chan struct{})
	var drivers, operator sync.WaitGroup
	for i := range queues {
		tr := newTraffic(d, i, depth)
		drivers.Go(func() {
			for n := range rounds {
				if err := tr.round(n, true); err != nil {
					t.Error(err)
					return
				}
			}
		})
	}
	operator.Go(func() {
		for n := uint64(0); ; n++ {
			select {
			case <-stop:
				return
			default:
			}
			if err := errors.Join(d.Transport.Pause(), dev.SetLimits(limit.Limits{Operations: limit.Rate{PerSecond: 20_000 * (n % 4), Burst: 10 * (n % 4)}}),
				d.Transport.Resume()); err != nil {
				t.Error(err)
			}
		}
	})
	drivers.Wait()
	close(stop)
	operator.Wait()
	if s := dev.Stats(); s.Reads != queues*depth*rounds || s.Writes != s.Reads || s.Errors != 0 || s.Throttled == 0 {
		t.Errorf("%+v", s)
	}
}

// TestNoAllocation counts allocations of the whole process while requests run.
func TestNoAllocation(t *testing.T) {
	if raceEnabled {
		t.Skip("the race detector allocates")
	}
	d, _, _ := newDisk(t, blk.Options{Queues: 2, Limits: limit.Limits{Operations: limit.Rate{PerSecond: limit.MaxPerSecond}}})
	d.Start(virtio.FeatureEventIdx | featureFlush)
	const depth = 64
	tr := [2]*traffic{newTraffic(d, 0, depth), newTraffic(d, 1, depth)}
	round := func() {
		for _, tr := range tr {
			if err := tr.round(0, false); err != nil {
				t.Fatal(err)
			}
		}
	}
	// The runtime itself allocates now and then: for its threads, and when it collects.
	var n float64
	for range 5 {
		if n = testing.AllocsPerRun(10, round); n == 0 {
			return
		}
	}
	t.Errorf("%v allocations in %d requests, again and again", n, 4*depth)
}

// TestLimits lets requests through at a rate, changes it while one waits, and
// pauses and resets a device with a request that waits.
func TestLimits(t *testing.T) {
	never := limit.Limits{Operations: limit.Rate{PerSecond: 1, Burst: 1}}
	d, dev, _ := newDisk(t, blk.Options{Limits: limit.Limits{Operations: limit.Rate{PerSecond: 100, Burst: 1}}})
	d.Start(virtio.FeatureEventIdx | featureFlush)
	began := time.Now()
	for range 12 {
		do(d, 0, flush, 0)
	}
	// Two pass at once: the burst, and the one that empties the bucket further.
	if took := time.Since(began); took < 100*time.Millisecond {
		t.Errorf("12 requests took %v at 100 per second", took)
	}
	limited := dev.Stats().Throttled
	if err := dev.SetLimits(never); err != nil {
		t.Fatal(err)
	}
	q := d.Queues[0]
	for range 4 {
		q.Add(q.Out(header(in, 0)), q.In(512), q.In(1))
	}
	q.Kick()
	waitFor(t, func() bool { return dev.Stats().Throttled > limited })
	if err := d.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	// A paused device has forgotten what waits: it is in the available ring still.
	if err := d.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	if err := dev.SetLimits(limit.Limits{}); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		q.Wait()
	}
	if got := dev.Limits(); got != (limit.Limits{}) {
		t.Errorf("%+v", got)
	}
	if err := dev.SetLimits(never); err != nil {
		t.Fatal(err)
	}
	for range 4 {
		q.Add(q.Out(header(in, 0)), q.In(512), q.In(1))
	}
	q.Kick()
	d.Start(0) // a reset does not wait for the limit
	if err := dev.SetLimits(limit.Limits{}); err != nil {
		t.Fatal(err)
	}
	if s := do(d, 0, flush, 0); s != ok {
		t.Errorf("status %d", s)
	}
	if err := dev.SetLimits(limit.Limits{Bytes: limit.Rate{Burst: 1}}); !errors.Is(err, qverr.Inval) {
		t.Errorf("a burst without a rate: %v", err)
	}
}

func waitFor(t *testing.T, f func() bool) {
	t.Helper()
	for deadline := time.Now().Add(10 * time.Second); !f(); {
		if time.Now().After(deadline) {
			t.Fatal("it does not come")
		}
		runtime.Gosched()
	}
}

// syncCounter counts what reaches the medium.
type syncCounter struct {
	block.Device
	flushes atomic.Int32
}

func (s *syncCounter) Flush() error { s.flushes.Add(1); return s.Device.Flush() }

// TestWriteCache has the guest choose whether writes are durable when they are done.
func TestWriteCache(t *testing.T) {
	const writeback = 32
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
	disk := &syncCounter{Device: raw}
	dev, err := blk.New(disk, blk.Options{})
	if err != nil {
		t.Fatal(err)
	}
	d := driver.New(t, dev, driver.NewMemory(t))
	write := func(want int32, what string) {
		t.Helper()
		before := disk.flushes.Load()
		do(d, 0, out, 0, d.Queues[0].Out(make([]byte, 512)))
		if got := disk.flushes.Load() - before; got != want {
			t.Errorf("%s: %d flushes, want %d", what, got, want)
		}
	}
	if d.Offered()&featureConfigWCE == 0 {
		t.Error("CONFIG_WCE is not offered")
	}
	d.Start(featureFlush | featureConfigWCE)
	if d.Read(4, writeback, 1) != 1 {
		t.Error("a cache that is on says it is off")
	}
	write(0, "writeback")
	d.Write(4, writeback, 1, 0)
	write(1, "writethrough by the guest")
	d.Write(4, writeback, 1, 1)
	write(0, "writeback again")
	d.Write(4, writeback, 1, 7) // not a value
	d.Write(4, writeback, 4, 0) // not a field
	write(0, "nonsense")
	d.Start(0)
	write(1, "a driver that cannot flush")
}

func TestNoWriteCache(t *testing.T) {
	d, _, _ := newDisk(t, blk.Options{Writethrough: true})
	if f := d.Offered(); f&(featureFlush|featureConfigWCE) != 0 {
		t.Errorf("features %#x", f)
	}
	d.Start(0)
	d.Write(4, 32, 1, 1)
	if d.Read(4, 32, 1) != 0 {
		t.Error("the guest switched the cache on")
	}
}

// TestContent writes by many buffers and reads the file.
func TestContent(t *testing.T) {
	d, _, path := newDisk(t, blk.Options{})
	d.Start(featureFlush)
	q := d.Queues[0]
	var want []byte
	var list []driver.Buffer
	for i := range 60 {
		part := bytes.Repeat([]byte{byte(i + 1)}, 512)
		want, list = append(want, part...), append(list, q.Out(part))
	}
	if s := do(d, 0, out, 3, list...); s != ok {
		t.Fatalf("status %d", s)
	}
	file, err := os.ReadFile(path)
	if err != nil || !bytes.Equal(file[3*512:3*512+len(want)], want) {
		t.Fatalf("the file differs (%v)", err)
	}
}

// BenchmarkDevice is the whole way of a guest's 4 KiB requests, without the guest:
// doorbell, queue, page cache, interrupt.
func BenchmarkDevice(b *testing.B) {
	for _, queues := range []int{1, 4} {
		for _, depth := range []int{1, 32} {
			b.Run(fmt.Sprintf("queues=%d/depth=%d", queues, depth), func(b *testing.B) {
				d, _, _ := newDisk(b, blk.Options{Queues: queues})
				d.Start(virtio.FeatureEventIdx | featureFlush)
				b.ReportAllocs()
				var wg sync.WaitGroup
				for i := range queues {
					tr := newTraffic(d, i, depth)
					wg.Go(func() {
						for n := 0; n < b.N; n += 2 * depth * queues {
							if err := tr.round(n, false); err != nil {
								b.Error(err)
							}
						}
					})
				}
				wg.Wait()
			})
		}
	}
}
