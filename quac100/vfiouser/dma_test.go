package vfiouser

import (
	"bytes"
	"errors"
	"os"
	"slices"
	"sync"
	"syscall"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/quac100/model"
)

// openFDs counts the descriptors of this process that are of the same file as fd.
func openFDs(t *testing.T, fd int) (n int) {
	t.Helper()
	var want, st unix.Stat_t
	ok(t, unix.Fstat(fd, &want))
	d, err := os.ReadDir("/proc/self/fd")
	ok(t, err)
	for _, e := range d {
		if err := unix.Stat("/proc/self/fd/"+e.Name(), &st); err == nil && st.Ino == want.Ino && st.Dev == want.Dev {
			n++
		}
	}
	return n
}

func TestSharedMemory(t *testing.T) {
	f, c := pair(t)
	h := f.get(t)
	fd, mem := memfd(t, 64<<10)
	ok(t, c.MapFD(0x10000, 0x4000, fd, 0x8000, true, true))
	ok(t, c.MapFD(0x14000, 0x1000, fd, 0, true, false)) // next to it, read-only, elsewhere in the file
	ok(t, h.WriteDMA(0x10FFE, []byte("hello")))
	if string(mem[0x8FFE:0x9003]) != "hello" {
		t.Errorf("memory %q", mem[0x8FFE:0x9003])
	}
	copy(mem[0x8000+0x3FFE:], "ab")
	copy(mem, "cd")
	got := make([]byte, 4)
	ok(t, h.ReadDMA(0x13FFE, got)) // across both
	if string(got) != "abcd" {
		t.Errorf("read %q", got)
	}
	ok(t, h.WriteDMA(0x10100, []byte{1, 2, 3, 4}))
	for what, err := range map[string]error{
		"below":                 h.ReadDMA(0xFFFF, got),
		"over the end":          h.ReadDMA(0x14FFE, got),
		"far away":              h.ReadDMA(1<<40, got),
		"the end of everything": h.ReadDMA(^uint64(0)-1, got),
	} {
		if !errors.Is(err, model.ErrUnmapped) {
			t.Errorf("%s: %v", what, err)
		}
	}
	// The client hears of each, as an IOMMU of a machine does.
	c.mu.Lock()
	heard := slices.Sorted(slices.Values(c.refused))
	c.mu.Unlock()
	if want := []uint64{0xFFFF, 0x15000, 1 << 40, ^uint64(0) - 1}; !slices.Equal(heard, want) {
		t.Errorf("the client heard of %#x, want %#x", heard, want)
	}
	if err := h.WriteDMA(0x14000, got); !errors.Is(err, model.ErrPermission) {
		t.Errorf("write to a read-only map: %v", err)
	}
	if err := h.WriteDMA(0x13FFE, got); !errors.Is(err, model.ErrPermission) {
		t.Errorf("write that ends in a read-only map: %v", err)
	}
}

// Thousands of maps of one file, each with a fresh descriptor, as a vIOMMU makes them: one mapping, no descriptor left.
func TestManyMaps(t *testing.T) {
	f, c := pair(t)
	const pages = 2048
	fd, mem := memfd(t, pages*4096)
	ok(t, c.MapFD(0, 4096, fd, 0, true, true))
	ok(t, c.Read(0, make([]byte, 4)))
	before := openFDs(t, fd)
	for i := 1; i < pages; i++ {
		ok(t, c.MapFD(uint64(i)*4096, 4096, fd, uint64(pages-i)*4096, true, true))
	}
	ok(t, c.Read(0, make([]byte, 4))) // the server is done with the last map
	if n := openFDs(t, fd); n != before {
		t.Errorf("%d descriptors more than before", n-before)
	}
	h := f.get(t)
	data := bytes.Repeat([]byte("0123456789abcdef"), 4096)
	ok(t, h.WriteDMA(0x1800, data)) // over 17 pages, backwards in the file
	got := make([]byte, len(data))
	ok(t, h.ReadDMA(0x1800, got))
	if !bytes.Equal(got, data) || !bytes.Equal(mem[(pages-2)*4096:(pages-1)*4096], data[2048:2048+4096]) {
		t.Error("data differs")
	}
	ok(t, c.Unmap(0, 1<<47)) // all in one
	if err := h.ReadDMA(0x1800, got); !errors.Is(err, model.ErrUnmapped) {
		t.Errorf("after the unmap: %v", err)
	}
	ok(t, c.Unmap(0, 1<<47)) // nothing there: success
	ok(t, c.Unmap(1<<46, 4096))
}

func TestUnmapRanges(t *testing.T) {
	var s space
	fd, mem := memfd(t, 16*4096)
	add := func(page, n uint64) {
		t.Helper()
		ok(t, s.add(dmaMap{flags: mapRead | mapWrite, iova: page << 12, offset: page << 12, length: n << 12}, fd))
	}
	reach := func(page uint64) bool {
		n, _, err := s.access(page<<12, make([]byte, 4), false)
		return err == nil && n == 4
	}
	for i := range mem {
		mem[i] = byte(i >> 12)
	}
	add(0, 4)
	add(4, 1)
	add(8, 4)
	s.remove(dmaUnmap{iova: 2 << 12, length: 7 << 12}) // cuts the first, removes the second, cuts the third
	for page, want := range map[uint64]bool{0: true, 1: true, 2: false, 3: false, 4: false, 8: false, 9: true, 11: true, 12: false} {
		if reach(page) != want {
			t.Errorf("page %d is reachable: %v", page, !want)
		}
	}
	var b [1]byte
	if _, _, err := s.access(10<<12, b[:], false); err != nil || b[0] != 10 {
		t.Errorf("the rest of a cut map reads %d: %v", b[0], err)
	}
	s.remove(dmaUnmap{iova: 10 << 12, length: 1 << 12}) // a hole in the middle
	if !reach(9) || reach(10) || !reach(11) {
		t.Error("a hole is not one")
	}
	for _, x := range []struct{ page, n uint64 }{{0, 1}, {1, 1}, {0, 16}, {9, 1}, {11, 2}} {
		if err := s.add(dmaMap{flags: mapRead, iova: x.page << 12, length: x.n << 12}, -1); !errors.Is(err, syscall.EEXIST) {
			t.Errorf("map over page %d: %v", x.page, err)
		}
	}
	s.remove(dmaUnmap{iova: 0, length: 0})
	s.remove(dmaUnmap{flags: unmapAll})
	if len(s.regions) != 0 {
		t.Errorf("%d regions are left", len(s.regions))
	}
	for _, f := range s.files {
		if f.refs != 0 {
			t.Errorf("a file has %d uses", f.refs)
		}
	}
	s.close()
}

func TestBadMaps(t *testing.T) {
	_, c := pair(t)
	fd, _ := memfd(t, 8192)
	p := make([]int, 2)
	ok(t, unix.Pipe(p))
	defer unix.Close(p[0])
	defer unix.Close(p[1])
	for what, x := range map[string]struct {
		m   dmaMap
		fds []int
	}{
		"no length":                  {dmaMap{flags: 3}, []int{fd}},
		"beyond the file":            {dmaMap{flags: 3, length: 8193}, []int{fd}},
		"an offset beyond":           {dmaMap{flags: 3, offset: 4096, length: 8192}, []int{fd}},
		"an offset that wraps":       {dmaMap{flags: 3, offset: ^uint64(0) - 4095, length: 8192}, []int{fd}},
		"an address that wraps":      {dmaMap{flags: 3, iova: ^uint64(0) - 4095, length: 8192}, []int{fd}},
		"a pipe":                     {dmaMap{flags: 3, length: 4096}, []int{p[0]}},
		"by mmap without descriptor": {dmaMap{flags: 3 | 1<<2, length: 4096}, nil},
	} {
		if _, err := c.call(cmdDMAMap, x.m.append(nil), x.fds...); !errors.Is(err, syscall.EINVAL) {
			t.Errorf("%s: %v", what, err)
		}
	}
	ok(t, c.MapFD(0, 4096, fd, 0, true, true))
	if err := c.MapFD(0, 4096, fd, 0, true, true); !errors.Is(err, syscall.EEXIST) {
		t.Errorf("a second map: %v", err)
	}
}

// A client that shrinks its file makes the access fail, not the server.
func TestShrunkFile(t *testing.T) {
	f, c := pair(t)
	fd, err := unix.MemfdCreate("shrinks", unix.MFD_CLOEXEC)
	ok(t, err)
	defer unix.Close(fd)
	ok(t, unix.Ftruncate(fd, 1<<20))
	ok(t, c.MapFD(0, 1<<20, fd, 0, true, true))
	h := f.get(t)
	ok(t, h.WriteDMA(0x80000, []byte("x")))
	ok(t, unix.Ftruncate(fd, 4096))
	if err := h.WriteDMA(0x80000, []byte("x")); !errors.Is(err, errFault) {
		t.Errorf("write: %v", err)
	}
	if err := h.ReadDMA(0x80000, make([]byte, 4096)); !errors.Is(err, errFault) {
		t.Errorf("read: %v", err)
	}
	if err := h.WriteDMA(0x80000, []byte{1, 2, 3, 4}); !errors.Is(err, errFault) {
		t.Errorf("word: %v", err)
	}
	ok(t, c.Read(0, make([]byte, 4)))
}

func TestGrownFile(t *testing.T) {
	f, c := pair(t)
	fd, _ := memfd(t, 4096)
	ok(t, c.MapFD(0, 4096, fd, 0, true, true))
	ok(t, unix.Ftruncate(fd, 8192))
	ok(t, c.MapFD(0x1000, 4096, fd, 4096, true, true))
	h := f.get(t)
	ok(t, h.WriteDMA(0xFFE, []byte("over")))
	ok(t, c.Unmap(0, 4096))
	got := make([]byte, 2)
	ok(t, h.ReadDMA(0x1000, got))
	if string(got) != "er" {
		t.Errorf("read %q", got)
	}
}

func TestRemoteMemory(t *testing.T) {
	f, c := pair(t)
	h := f.get(t)
	mem := make([]byte, 1<<20)
	for i := range mem {
		mem[i] = byte(i * 3)
	}
	want := bytes.Clone(mem)
	ok(t, c.MapRemote(0x100000, mem, true, true))
	got := make([]byte, 700<<10) // eleven messages
	ok(t, h.ReadDMA(0x100000+1000, got))
	if !bytes.Equal(got, want[1000:1000+len(got)]) {
		t.Error("read differs")
	}
	data := bytes.Repeat([]byte{0xAB}, 200<<10)
	ok(t, h.WriteDMA(0x100000, data))
	c.mu.Lock() // what the client's own goroutine wrote
	written := bytes.Clone(mem)
	c.mu.Unlock()
	if !bytes.Equal(written[:len(data)], data) || written[len(data)] != byte(len(data)*3&0xFF) {
		t.Error("write differs")
	}
	ro := make([]byte, 4096)
	ok(t, c.MapRemote(0x400000, ro, true, false))
	if err := h.WriteDMA(0x400000, []byte{1}); !errors.Is(err, model.ErrPermission) {
		t.Errorf("write to a read-only map: %v", err)
	}
	c.mu.Lock()
	c.remote = map[uint64]remoteMemory{}
	c.mu.Unlock()
	if err := h.ReadDMA(0x100000, got); !errors.Is(err, syscall.ENODEV) || !errors.Is(err, model.ErrUnmapped) {
		t.Errorf("refused by the client: %v", err)
	}
}

// The deadlock of the notes: register accesses are answered while the card waits for its DMA message.
func TestRegistersDuringDMA(t *testing.T) {
	f, c := pair(t)
	h := f.get(t)
	var wg sync.WaitGroup
	mem := make([]byte, 4096)
	ok(t, c.MapRemote(0, mem, true, true))
	for range 4 {
		wg.Go(func() {
			for range 200 {
				if err := h.ReadDMA(0, make([]byte, 512)); err != nil {
					t.Error(err)
				}
			}
		})
	}
	var b [4]byte
	for range 400 {
		ok(t, c.Read(0, b[:]))
		ok(t, c.Write(8, b[:]))
	}
	wg.Wait()
}

// The client leaves while a DMA message waits for its answer.
func TestClientLeavesDuringDMA(t *testing.T) {
	f := &fakeCard{}
	uc := rawDial(t, serve(t, f))
	c := conn{UnixConn: uc}
	v := version{}
	ok(t, c.write(header{id: 1, cmd: cmdVersion}, v.append(nil)))
	_, err := c.receive()
	ok(t, err)
	m := dmaMap{flags: 3, length: 4096}
	ok(t, c.write(header{id: 2, cmd: cmdDMAMap}, m.append(nil)))
	_, err = c.receive()
	ok(t, err)
	h := f.get(t)
	done := make(chan error, 1)
	go func() { done <- h.ReadDMA(0, make([]byte, 8)) }()
	msg, err := c.receive()
	ok(t, err)
	if msg.cmd != cmdDMARead {
		t.Errorf("command %d", msg.cmd)
	}
	// An answer to something else, and one that is too short for another, do not confuse it.
	ok(t, c.write(header{id: 999, cmd: cmdDMARead, flags: typeReply}, nil))
	uc.Close()
	if err := <-done; !errors.Is(err, errGone) {
		t.Errorf("the access ended with %v", err)
	}
}

func TestShortDMAReply(t *testing.T) {
	f := &fakeCard{}
	c := conn{UnixConn: rawDial(t, serve(t, f))}
	v := version{}
	ok(t, c.write(header{cmd: cmdVersion}, v.append(nil)))
	_, err := c.receive()
	ok(t, err)
	m := dmaMap{flags: 3, length: 4096}
	ok(t, c.write(header{cmd: cmdDMAMap}, m.append(nil)))
	_, err = c.receive()
	ok(t, err)
	h := f.get(t)
	for _, body := range [][]byte{nil, {1, 2, 3}, make([]byte, 16), make([]byte, 23)} {
		done := make(chan error, 1)
		go func() { done <- h.ReadDMA(0, make([]byte, 8)) }()
		msg, err := c.receive()
		ok(t, err)
		ok(t, c.write(header{id: msg.id, cmd: cmdDMARead, flags: typeReply}, body))
		if err := <-done; err == nil {
			t.Errorf("a reply of %d bytes is accepted", len(body))
		}
	}
}
