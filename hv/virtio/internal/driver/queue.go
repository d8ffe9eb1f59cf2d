package driver

// Descriptor flags.
const (
	Next     = 1
	Write    = 2
	Indirect = 4
)

// waitMS is how long a test waits for a device. A device answers at once.
const waitMS = 10_000

// Queue is the driver's side of a virtqueue.
type Queue struct {
	Size              int
	Desc, Avail, Used uint64

	d        *Driver
	index    int
	vector   int // of MSI-X
	eventIdx bool
	free     uint16 // next descriptor to use
	avail    uint16
	used     uint16
}

// Buffer is one descriptor of a request.
type Buffer struct {
	Addr uint64
	Len  uint32
	In   bool // the device writes it
}

// Out puts data into guest memory for the device to read.
func (q *Queue) Out(data []byte) Buffer {
	b := Buffer{Addr: q.d.Alloc(uint64(len(data))), Len: uint32(len(data))}
	if err := q.d.Mem.WriteAt(data, b.Addr); err != nil {
		q.d.TB.Fatal(err)
	}
	return b
}

// In reserves n bytes for the device to write.
func (q *Queue) In(n int) Buffer {
	return Buffer{Addr: q.d.Alloc(uint64(n)), Len: uint32(n), In: true}
}

// Bytes is what is in a buffer.
func (q *Queue) Bytes(b Buffer) []byte {
	p := make([]byte, b.Len)
	if err := q.d.Mem.ReadAt(p, b.Addr); err != nil {
		q.d.TB.Fatal(err)
	}
	return p
}

// SetDescriptor writes a descriptor into the table at addr, checking nothing.
func (q *Queue) SetDescriptor(table uint64, i uint16, b Buffer, flags, next uint16) {
	at := table + 16*uint64(i)
	if b.In {
		flags |= Write
	}
	q.must(q.d.Mem.PutUint64(at, b.Addr))
	q.must(q.d.Mem.PutUint32(at+8, b.Len))
	q.must(q.d.Mem.PutUint16(at+12, flags))
	q.must(q.d.Mem.PutUint16(at+14, next))
}

func (q *Queue) must(err error) {
	q.d.TB.Helper()
	if err != nil {
		q.d.TB.Fatal(err)
	}
}

// Add makes a request of the buffers and returns its head. The device does not
// know of it yet.
func (q *Queue) Add(buffers ...Buffer) uint16 {
	head := q.free
	for i, b := range buffers {
		flags := uint16(Next)
		if i == len(buffers)-1 {
			flags = 0
		}
		at := q.free
		q.free = (q.free + 1) % uint16(q.Size)
		q.SetDescriptor(q.Desc, at, b, flags, q.free)
	}
	q.Offer(head)
	return head
}

// AddIndirect makes a request of an indirect table.
func (q *Queue) AddIndirect(buffers ...Buffer) uint16 {
	table := q.d.Alloc(16 * uint64(len(buffers)))
	for i, b := range buffers {
		flags := uint16(Next)
		if i == len(buffers)-1 {
			flags = 0
		}
		q.SetDescriptor(table, uint16(i), b, flags, uint16(i+1))
	}
	head := q.free
	q.free = (q.free + 1) % uint16(q.Size)
	q.SetDescriptor(q.Desc, head, Buffer{Addr: table, Len: uint32(16 * len(buffers))}, Indirect, 0)
	q.Offer(head)
	return head
}

// Offer puts a head into the available ring.
func (q *Queue) Offer(head uint16) {
	q.must(q.d.Mem.PutUint16(q.Avail+4+2*uint64(q.avail%uint16(q.Size)), head))
	q.avail++
	q.SetAvail(q.avail)
}

// SetAvail writes the available index.
func (q *Queue) SetAvail(idx uint16) { q.must(q.d.Mem.PutUint16(q.Avail+2, idx)) }

// Kick notifies the device through its doorbell.
func (q *Queue) Kick() {
	addr := q.d.caps[2].addr + uint64(q.index)*uint64(q.d.notifyMultiplier)
	if !q.d.host.ring(addr) {
		q.d.TB.Fatalf("queue %d has no doorbell at %#x", q.index, addr)
	}
}

// Done returns the next used entry, if there is one.
func (q *Queue) Done() (head uint16, n uint32, ok bool) {
	idx, err := q.d.Mem.Uint16(q.Used + 2)
	q.must(err)
	if idx == q.used {
		return 0, 0, false
	}
	at := q.Used + 4 + 8*uint64(q.used%uint16(q.Size))
	id, err := q.d.Mem.Uint32(at)
	q.must(err)
	n, err = q.d.Mem.Uint32(at + 4)
	q.must(err)
	q.used++
	if q.eventIdx {
		q.must(q.d.Mem.PutUint16(q.Avail+4+2*uint64(q.Size), q.used))
	}
	return uint16(id), n, true
}

// Wait waits for the interrupt of the next used entry.
func (q *Queue) Wait() (head uint16, n uint32) {
	q.d.TB.Helper()
	for {
		if head, n, ok := q.Done(); ok {
			return head, n
		}
		if !q.d.Interrupted(q.vector, waitMS) {
			if head, n, ok := q.Done(); ok {
				return head, n
			}
			q.d.TB.Fatalf("queue %d: no answer; the device said %v", q.index, q.d.Logs())
		}
	}
}

// Do makes a request and waits for it.
func (q *Queue) Do(buffers ...Buffer) uint32 {
	q.d.TB.Helper()
	head := q.Add(buffers...)
	q.Kick()
	got, n := q.Wait()
	if got != head {
		q.d.TB.Fatalf("queue %d: request %d came back, not %d", q.index, got, head)
	}
	return n
}

// Broken waits until the device asks for a reset.
func (d *Driver) Broken() bool {
	d.unmaskConfig()
	for range 50 {
		if d.Status()&NeedsReset != 0 {
			return true
		}
		d.Interrupted(0, waitMS/50)
	}
	return false
}

func (d *Driver) unmaskConfig() {
	d.Write(1, 16, 2, 0)
	d.unmask(0)
}
