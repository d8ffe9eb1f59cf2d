package balloon_test

import (
	"encoding/binary"
	"errors"
	"testing"
	"time"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio/balloon"
	"quantavirt/hv/virtio/internal/driver"
	"quantavirt/internal/qverr"
)

const (
	inflate, deflate, statsQueue = 0, 1, 2

	stats     = 1 << 1
	reporting = 1 << 5

	page = memory.PageSize
	// Memory of the driver above what it uses itself.
	spare = 4 << 20
)

type rig struct {
	*driver.Driver
	dev *balloon.Device
}

func newRig(t *testing.T, features uint64) *rig {
	t.Helper()
	mem := driver.NewMemory(t)
	dev, err := balloon.New(mem, 0)
	if err != nil {
		t.Fatal(err)
	}
	r := &rig{driver.New(t, dev, mem), dev}
	r.Start(features)
	return r
}

// fill writes n pages from spare on, and gone tells which of them read as zero.
func (r *rig) fill(n int) {
	p := make([]byte, n*page)
	for i := range p {
		p[i] = 0x5a
	}
	if err := r.Mem.WriteAt(p, spare); err != nil {
		r.TB.Fatal(err)
	}
}

func (r *rig) gone(n int) (list []int) {
	for i := range n {
		v, err := r.Mem.Uint32(spare + uint64(i)*page + page - 4)
		if err != nil {
			r.TB.Fatal(err)
		}
		if v == 0 {
			list = append(list, i)
		}
	}
	return list
}

func numbers(list ...uint32) []byte {
	var b []byte
	for _, n := range list {
		b = binary.LittleEndian.AppendUint32(b, n)
	}
	return b
}

func TestInflate(t *testing.T) {
	r := newRig(t, stats)
	r.fill(8)
	const first = spare / page
	q := r.Queues[inflate]
	q.Do(q.Out(numbers(first, first+1)), q.Out(numbers(first+5, first+4, first+7)))
	if got := r.gone(8); len(got) != 5 || got[0] != 0 || got[1] != 1 || got[2] != 4 || got[3] != 5 || got[4] != 7 {
		t.Errorf("pages %v are gone", got)
	}
	q.Do(q.Out([]byte{1, 2, 3})) // no number at all
	d := r.Queues[deflate]
	d.Do(d.Out(numbers(first, 0xffff_ffff))) // to be taken back; nothing is done with it
	if s := r.dev.State(); s.Inflated != 5*page || s.Reported != 0 || !s.Ready {
		t.Errorf("%+v", s)
	}
}

// TestBadPages: numbers of what is no memory break the device, and no page is lost by them.
func TestBadPages(t *testing.T) {
	for _, bad := range []uint32{8 << 20 / page, 0xffff_ffff, 0xc_0000} {
		r := newRig(t, 0)
		q := r.Queues[inflate]
		q.Add(q.Out(numbers(bad)))
		q.Kick()
		if !r.Broken() {
			t.Errorf("page %#x", bad)
		}
	}
	r := newRig(t, 0)
	r.fill(1)
	q := r.Queues[inflate]
	q.Add(q.Out(numbers(8<<20/page-1, 8<<20/page)))
	q.Kick()
	if !r.Broken() || len(r.gone(1)) != 0 {
		t.Error("a run beyond the end of memory")
	}
}

func TestReporting(t *testing.T) {
	for name, features := range map[string]uint64{"third queue": reporting, "fourth queue": reporting | stats} {
		r := newRig(t, features)
		r.fill(8)
		q := r.Queues[2]
		if features&stats != 0 {
			q = r.Queues[3]
		}
		q.Do(driver.Buffer{Addr: spare + page, Len: 2 * page, In: true}, driver.Buffer{Addr: spare + 5*page + 1, Len: 2 * page, In: true})
		if got := r.gone(8); len(got) != 3 || got[0] != 1 || got[1] != 2 || got[2] != 6 {
			t.Errorf("%s: pages %v are gone", name, got)
		}
		if s := r.dev.State(); s.Reported != 3*page || s.Inflated != 0 {
			t.Errorf("%s: %+v", name, s)
		}
	}
}

func TestTarget(t *testing.T) {
	r := newRig(t, stats)
	const size = 8 << 20
	if err := r.dev.SetTarget(5 << 20); err != nil {
		t.Fatal(err)
	}
	if n := r.Read(4, 0, 4); n != 3<<20/page {
		t.Errorf("%d pages are wanted", n)
	}
	r.Write(4, 4, 4, 100) // the driver gave 100
	if s := r.dev.State(); s.Target != 5<<20 || s.Actual != size-100*page {
		t.Errorf("%+v", s)
	}
	r.Write(4, 0, 4, 7) // not the driver's to write
	r.Write(4, 4, 4, 0xffff_ffff)
	if s := r.dev.State(); s.Target != 5<<20 || s.Actual != 0 {
		t.Errorf("%+v", s)
	}
	for _, bad := range []int64{-4096, size + 4096, 4097} {
		if err := r.dev.SetTarget(bad); !errors.Is(err, qverr.Inval) {
			t.Errorf("target %d: %v", bad, err)
		}
	}
	r.SetStatus(0)
	if err := r.dev.SetTarget(size); !errors.Is(err, qverr.Balloon) {
		t.Errorf("without a driver: %v", err)
	}
	if s := r.dev.State(); s.Target != 5<<20 || s.Actual != size || s.Ready {
		t.Errorf("after a reset %+v", s)
	}
}

func entry(b []byte, tag uint16, v uint64) []byte {
	return binary.LittleEndian.AppendUint64(binary.LittleEndian.AppendUint16(b, tag), v)
}

func TestStatistics(t *testing.T) {
	r := newRig(t, stats)
	if s := r.dev.Statistics(time.Millisecond); s != nil {
		t.Errorf("out of nothing: %+v", s)
	}
	q := r.Queues[statsQueue]
	answer := q.Out(entry(entry(entry(entry(nil, 4, 1000), 5, 2000), 0xfff0, 3), 10, 7))
	q.Add(answer)
	q.Kick()
	// The guest fills the buffer each time that it comes back.
	filled := make(chan struct{})
	go func() {
		defer close(filled)
		for range 3 {
			q.Wait()
			q.Add(answer)
			q.Kick()
		}
	}()
	for n := 0; n < 3; {
		s := r.dev.Statistics(10 * time.Second)
		if s == nil {
			continue // the first buffer is under way
		}
		n++
		if s.Free != 1000 || s.Total != 2000 || s.OOMKills != 7 || s.Available != 0 || s.Time.IsZero() {
			t.Errorf("%+v", s)
		}
	}
	<-filled
	if err := r.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	if s := r.dev.Statistics(time.Hour); s == nil || s.Free != 1000 {
		t.Errorf("during a pause: %+v", s)
	}
	if err := r.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	q.Add(answer)
	q.Kick()
	if !r.Broken() {
		t.Error("two buffers")
	}
}

// TestPause: no page is taken during a pause.
func TestPause(t *testing.T) {
	r := newRig(t, reporting)
	r.fill(2)
	if err := r.Transport.Pause(); err != nil {
		t.Fatal(err)
	}
	in, rep := r.Queues[inflate], r.Queues[2]
	in.Add(in.Out(numbers(spare / page)))
	in.Kick()
	rep.Add(driver.Buffer{Addr: spare + page, Len: page, In: true})
	rep.Kick()
	r.Interrupted(1, 30)
	if got := r.gone(2); len(got) != 0 {
		t.Errorf("pages %v are gone", got)
	}
	if err := r.Transport.Resume(); err != nil {
		t.Fatal(err)
	}
	in.Wait()
	rep.Wait()
	if got := r.gone(2); len(got) != 2 {
		t.Errorf("pages %v are gone", got)
	}
}
