package virtio_test

import (
	"encoding/binary"
	"errors"
	"testing"

	"quantavirt/hv/memory"
	"quantavirt/hv/virtio"
)

const (
	memSize  = 1 << 20
	descAt   = 0x1000
	availAt  = 0x2000
	usedAt   = 0x3000
	tableAt  = 0x4000
	dataAt   = 0x8000
	testSize = 8

	flagNext, flagWrite, flagIndirect = 1, 2, 4
)

// rings is a queue whose memory a test writes by hand.
type rings struct {
	t   testing.TB
	mem *memory.Memory
	q   *virtio.Queue
}

func newRings(t testing.TB, features uint64) *rings {
	t.Helper()
	mem, err := memory.New(memSize)
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { mem.Close() })
	q, err := virtio.NewQueue(mem, virtio.Layout{Size: testSize, Desc: descAt, Avail: availAt, Used: usedAt}, features)
	if err != nil {
		t.Fatal(err)
	}
	return &rings{t, mem, q}
}

func (r *rings) put(gpa uint64, b []byte) {
	r.t.Helper()
	if err := r.mem.WriteAt(b, gpa); err != nil {
		r.t.Fatal(err)
	}
}

type desc struct {
	addr        uint64
	len         uint32
	flags, next uint16
}

func (r *rings) table(gpa uint64, list ...desc) {
	var b []byte
	for _, d := range list {
		b = binary.LittleEndian.AppendUint64(b, d.addr)
		b = binary.LittleEndian.AppendUint32(b, d.len)
		b = binary.LittleEndian.AppendUint16(b, d.flags)
		b = binary.LittleEndian.AppendUint16(b, d.next)
	}
	r.put(gpa, b)
}

// offer makes heads available and sets the index to how many there are.
func (r *rings) offer(heads ...uint16) {
	b := make([]byte, 4)
	binary.LittleEndian.PutUint16(b[2:], uint16(len(heads)))
	for _, h := range heads {
		b = binary.LittleEndian.AppendUint16(b, h)
	}
	r.put(availAt, b)
}

func TestLayoutRefused(t *testing.T) {
	mem, err := memory.New(memSize)
	if err != nil {
		t.Fatal(err)
	}
	defer mem.Close()
	good := virtio.Layout{Size: testSize, Desc: descAt, Avail: availAt, Used: usedAt}
	for name, change := range map[string]func(*virtio.Layout){
		"no size":              func(l *virtio.Layout) { l.Size = 0 },
		"not a power of two":   func(l *virtio.Layout) { l.Size = 7 },
		"too large":            func(l *virtio.Layout) { l.Size = 2 * virtio.MaxQueueSize },
		"misaligned table":     func(l *virtio.Layout) { l.Desc += 8 },
		"misaligned avail":     func(l *virtio.Layout) { l.Avail++ },
		"misaligned used":      func(l *virtio.Layout) { l.Used += 2 },
		"table over the end":   func(l *virtio.Layout) { l.Desc = memSize - 16 },
		"avail at the end":     func(l *virtio.Layout) { l.Avail = memSize - 6 },
		"used past the end":    func(l *virtio.Layout) { l.Used = memSize },
		"used that wraps":      func(l *virtio.Layout) { l.Used = ^uint64(3) },
		"table in device MMIO": func(l *virtio.Layout) { l.Desc = 0xd000_0000 },
	} {
		l := good
		change(&l)
		if _, err := virtio.NewQueue(mem, l, 0); !errors.Is(err, virtio.ErrDriver) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if _, err := virtio.NewQueue(mem, good, 0); err != nil {
		t.Fatal(err)
	}
}

// TestPop holds each rule of section 2.7 against a driver that breaks it.
func TestPop(t *testing.T) {
	const indirect = virtio.FeatureIndirect
	for _, tc := range []struct {
		name        string
		features    uint64
		descs       []desc
		table       []desc // indirect, at tableAt
		heads       []uint16
		avail       int // available index; -1 for the number of heads
		read, write int // bytes expected; read -1 means ErrDriver
	}{
		{"nothing", 0, nil, nil, nil, -1, 0, 0},
		{"one each", 0, []desc{{dataAt, 10, flagNext, 1}, {dataAt, 20, flagWrite, 0}}, nil, []uint16{0}, -1, 10, 20},
		{"chain in any order", 0, []desc{{}, {dataAt, 7, 0, 0}, {dataAt, 5, flagNext, 1}}, nil, []uint16{2}, -1, 12, 0},
		{"empty buffers", 0, []desc{{dataAt, 0, flagNext, 1}, {1 << 60, 0, flagNext, 2}, {dataAt, 1, flagWrite, 0}}, nil, []uint16{0}, -1, 0, 1},
		{"head out of range", 0, nil, nil, []uint16{testSize}, -1, -1, 0},
		{"next out of range", 0, []desc{{dataAt, 1, flagNext, 999}}, nil, []uint16{0}, -1, -1, 0},
		{"loop to itself", 0, []desc{{dataAt, 1, flagNext, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"loop of two", 0, []desc{{dataAt, 1, flagNext, 1}, {dataAt, 1, flagNext, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"readable after writable", 0, []desc{{dataAt, 1, flagNext | flagWrite, 1}, {dataAt, 1, 0, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"buffer past the end", 0, []desc{{memSize - 1, 2, 0, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"buffer that wraps", 0, []desc{{^uint64(0), 2, 0, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"4 GiB buffer", 0, []desc{{0, 1<<32 - 1, flagWrite, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"buffer in the PCI hole", 0, []desc{{0xc000_0000, 1, 0, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"index ran ahead", 0, []desc{{dataAt, 1, 0, 0}}, nil, []uint16{0}, testSize + 1, -1, 0},
		{"index went back", 0, []desc{{dataAt, 1, 0, 0}}, nil, []uint16{0}, 0xffff, -1, 0},
		{"full queue", 0, []desc{{dataAt, 3, 0, 0}}, nil, []uint16{0}, testSize, 3, 0},
		{"indirect", indirect, []desc{{tableAt, 32, flagIndirect, 0}}, []desc{{dataAt, 4, flagNext, 1}, {dataAt, 6, flagWrite, 0}}, []uint16{0}, -1, 4, 6},
		{"indirect after direct", indirect, []desc{{dataAt, 2, flagNext, 1}, {tableAt, 16, flagIndirect, 0}}, []desc{{dataAt, 4, flagWrite, 0}}, []uint16{0}, -1, 2, 4},
		{"indirect not negotiated", 0, []desc{{tableAt, 16, flagIndirect, 0}}, []desc{{dataAt, 4, 0, 0}}, []uint16{0}, -1, -1, 0},
		{"indirect with next", indirect, []desc{{tableAt, 16, flagIndirect | flagNext, 1}}, []desc{{dataAt, 4, 0, 0}}, []uint16{0}, -1, -1, 0},
		{"indirect in indirect", indirect, []desc{{tableAt, 16, flagIndirect, 0}}, []desc{{tableAt, 16, flagIndirect, 0}}, []uint16{0}, -1, -1, 0},
		{"empty indirect table", indirect, []desc{{tableAt, 0, flagIndirect, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"half a descriptor", indirect, []desc{{tableAt, 24, flagIndirect, 0}}, []desc{{dataAt, 4, 0, 0}}, []uint16{0}, -1, -1, 0},
		{"huge indirect table", indirect, []desc{{0, 16 * (testSize + 1), flagIndirect, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"indirect table past the end", indirect, []desc{{memSize - 8, 16, flagIndirect, 0}}, nil, []uint16{0}, -1, -1, 0},
		{"next outside of the indirect table", indirect, []desc{{tableAt, 16, flagIndirect, 0}}, []desc{{dataAt, 4, flagNext, 1}, {dataAt, 4, 0, 0}}, []uint16{0}, -1, -1, 0},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRings(t, tc.features)
			r.table(descAt, tc.descs...)
			r.table(tableAt, tc.table...)
			r.offer(tc.heads...)
			if tc.avail >= 0 {
				r.put(availAt+2, binary.LittleEndian.AppendUint16(nil, uint16(tc.avail)))
			}
			var c virtio.Chain
			ok, err := r.q.Pop(&c)
			if tc.read < 0 {
				if ok || !errors.Is(err, virtio.ErrDriver) {
					t.Fatalf("%v, %v", ok, err)
				}
				return
			}
			if err != nil || ok != (len(tc.heads) > 0) {
				t.Fatalf("%v, %v", ok, err)
			}
			if n, m := virtio.Len(c.Read), virtio.Len(c.Write); n != tc.read || m != tc.write {
				t.Fatalf("%d bytes to read, %d to write", n, m)
			}
		})
	}
}

func TestPushAndInterrupt(t *testing.T) {
	for _, tc := range []struct {
		name     string
		features uint64
		flags    uint16 // of the available ring
		event    uint16 // used_event
		want     []bool // after each of three pushes
	}{
		{"always", 0, 0, 0, []bool{true, true, true}},
		{"never", 0, 1, 0, []bool{false, false, false}},
		// The first answer always interrupts: what the driver saw before is not known.
		{"third", virtio.FeatureEventIdx, 0, 2, []bool{true, false, true}},
		{"flags do not count with event indexes", virtio.FeatureEventIdx, 1, 1, []bool{true, true, false}},
	} {
		t.Run(tc.name, func(t *testing.T) {
			r := newRings(t, tc.features)
			r.table(descAt, desc{dataAt, 1, flagWrite, 0}, desc{dataAt, 1, flagWrite, 0}, desc{dataAt, 1, flagWrite, 0})
			r.offer(0, 1, 2)
			r.put(availAt, binary.LittleEndian.AppendUint16(nil, tc.flags))
			r.put(availAt+4+2*testSize, binary.LittleEndian.AppendUint16(nil, tc.event))
			var c virtio.Chain
			for i, want := range tc.want {
				if ok, err := r.q.Pop(&c); !ok || err != nil {
					t.Fatal(ok, err)
				}
				r.q.Push(&c, uint32(100+i))
				if got := r.q.NeedsInterrupt(); got != want {
					t.Errorf("push %d: interrupt %v", i, got)
				}
				id, _ := r.mem.Uint32(usedAt + 4 + 8*uint64(i))
				n, _ := r.mem.Uint32(usedAt + 8 + 8*uint64(i))
				idx, _ := r.mem.Uint16(usedAt + 2)
				if id != uint32(i) || n != uint32(100+i) || int(idx) != i+1 {
					t.Errorf("push %d: id %d, %d bytes, index %d", i, id, n, idx)
				}
			}
		})
	}
}

func TestKickSuppression(t *testing.T) {
	for _, features := range []uint64{0, virtio.FeatureEventIdx} {
		r := newRings(t, features)
		r.q.DisableKick()
		flags, _ := r.mem.Uint16(usedAt)
		if want := uint16(1); features == 0 && flags != want {
			t.Errorf("flags %d after DisableKick", flags)
		}
		if r.q.EnableKick() {
			t.Error("something waits in an empty queue")
		}
		flags, _ = r.mem.Uint16(usedAt)
		if flags != 0 {
			t.Errorf("flags %d after EnableKick", flags)
		}
		r.table(descAt, desc{dataAt, 1, 0, 0})
		r.offer(0)
		if !r.q.EnableKick() {
			t.Error("EnableKick misses what came meanwhile")
		}
		var c virtio.Chain
		if ok, err := r.q.Pop(&c); !ok || err != nil {
			t.Fatal(ok, err)
		}
		r.q.EnableKick()
		event, _ := r.mem.Uint16(usedAt + 4 + 8*testSize)
		if features != 0 && event != 1 {
			t.Errorf("avail_event %d", event)
		}
	}
}

// TestWrap runs the indexes through 65536.
func TestWrap(t *testing.T) {
	r := newRings(t, 0)
	r.table(descAt, desc{dataAt, 1, flagWrite, 0})
	var c virtio.Chain
	for i := range 70_000 {
		r.put(availAt+2, binary.LittleEndian.AppendUint16(nil, uint16(i+1)))
		if ok, err := r.q.Pop(&c); !ok || err != nil {
			t.Fatal(i, ok, err)
		}
		r.q.Push(&c, 0)
		if idx, _ := r.mem.Uint16(usedAt + 2); idx != uint16(i+1) {
			t.Fatalf("used index %d after %d", idx, i)
		}
	}
}

// FuzzQueue lets a guest write anything anywhere in its first pages and checks
// that whatever Pop hands out is guest memory, and not too much of it.
func FuzzQueue(f *testing.F) {
	f.Add([]byte{}, uint16(0), true)
	f.Add([]byte{0, 0x80, 0, 0, 0, 0, 0, 0, 10, 0, 0, 0, 1, 0, 1, 0, 0, 0x80, 0, 0, 0, 0, 0, 0, 20, 0, 0, 0, 2, 0, 0, 0}, uint16(1), false)
	f.Add([]byte{0, 0x40, 0, 0, 0, 0, 0, 0, 32, 0, 0, 0, 4, 0, 0, 0}, uint16(8), true)
	mem, err := memory.New(memSize)
	if err != nil {
		f.Fatal(err)
	}
	all, err := mem.Slice(0, memSize)
	if err != nil {
		f.Fatal(err)
	}
	f.Fuzz(func(t *testing.T, data []byte, idx uint16, indirect bool) {
		clear(all[:0x10000])
		// The same bytes as descriptors, ring and indirect table.
		copy(all[descAt:availAt], data)
		copy(all[availAt:usedAt], data)
		copy(all[tableAt:dataAt], data)
		binary.LittleEndian.PutUint16(all[availAt+2:], idx)
		features := uint64(0)
		if indirect {
			features = virtio.FeatureIndirect
		}
		q, err := virtio.NewQueue(mem, virtio.Layout{Size: testSize, Desc: descAt, Avail: availAt, Used: usedAt}, features)
		if err != nil {
			t.Fatal(err)
		}
		var c virtio.Chain
		for range 2 * testSize {
			ok, err := q.Pop(&c)
			if err != nil && !errors.Is(err, virtio.ErrDriver) {
				t.Fatal(err)
			}
			if !ok {
				return
			}
			if len(c.Read)+len(c.Write) > testSize {
				t.Fatalf("%d buffers from a queue of %d", len(c.Read)+len(c.Write), testSize)
			}
			var out [64]byte
			c.CopyOut(out[:], 3)
			q.Push(&c, uint32(c.CopyIn(out[:])))
			q.NeedsInterrupt()
		}
	})
}
