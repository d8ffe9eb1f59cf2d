package vfiouser

import (
	"bytes"
	"log/slog"
	"net"
	"os"
	"sync"
	"testing"

	"golang.org/x/sys/unix"

	"quantavirt/quac100/model"
)

func FuzzParse(f *testing.F) {
	m := dmaMap{flags: 3, offset: 4096, iova: 1 << 20, length: 8192}
	v := version{caps: capabilities{MaxMsgFDs: 16}}
	s := irqSet{flags: 0x24, index: 2, count: 1}
	for _, b := range [][]byte{m.append(nil), v.append(nil), s.append(nil), make([]byte, 64)} {
		f.Add(b)
	}
	f.Fuzz(func(t *testing.T, b []byte) {
		if h, err := parseHeader(b); err == nil {
			out := make([]byte, headerSize)
			if h.put(out); !bytes.Equal(out, b[:headerSize]) {
				t.Fatalf("header %x became %x", b[:headerSize], out)
			}
		}
		if m, err := parseDMAMap(b); err == nil {
			if again, err := parseDMAMap(m.append(nil)); err != nil || again != m {
				t.Fatalf("%+v became %+v, %v", m, again, err)
			}
		}
		if u, err := parseDMAUnmap(b); err == nil && u.length > 0 && u.iova+u.length-1 < u.iova {
			t.Fatalf("unmap wraps: %+v", u)
		}
		if r, err := parseRegionIO(b); err == nil && r.check() == nil && r.offset+uint64(r.count) > 1<<16 {
			t.Fatalf("access outside a region: %+v", r)
		}
		if d, err := parseDMAIO(b); err == nil && !bytes.Equal(d.append(nil), b) {
			t.Fatalf("%x became %x", b, d.append(nil))
		}
		_, _ = parseVersion(b)
		_, _ = parseIRQSet(b)
	})
}

// FuzzSession lets a client say anything to a real card, with a memory file at hand for its maps.
func FuzzSession(f *testing.F) {
	card, err := model.New(model.Config{HostMSIX: true})
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { card.Close() })
	fd, mem, err := NewMemfd(1 << 16)
	if err != nil {
		f.Fatal(err)
	}
	f.Cleanup(func() { unix.Munmap(mem); unix.Close(fd) })
	msg := func(cmd command, payload []byte) []byte {
		b := make([]byte, headerSize)
		h := header{cmd: cmd, size: uint32(headerSize + len(payload))}
		h.put(b)
		return append(b, payload...)
	}
	v := version{}
	hello := msg(cmdVersion, v.append(nil))
	m := dmaMap{flags: 3, length: 65536}
	w := regionIO{region: 7, offset: 4, count: 2, data: []byte{6, 0}}
	f.Add(append(hello, msg(cmdDMAMap, m.append(nil))...))
	f.Add(append(bytes.Clone(hello), msg(cmdRegionWrite, w.append(nil))...))
	f.Add(append(bytes.Clone(hello), msg(cmdReset, nil)...))
	f.Fuzz(func(t *testing.T, stream []byte) {
		a, b := socketPair(t)
		defer a.Close()
		var wg sync.WaitGroup
		wg.Go(func() { _ = newSession(b, card, slog.New(slog.DiscardHandler)).serve() })
		wg.Go(func() {
			buf := make([]byte, 4096)
			for {
				if _, err := a.Read(buf); err != nil {
					return
				}
			}
		})
		n, _, err := a.WriteMsgUnix(stream, unix.UnixRights(fd), nil)
		if err == nil && n < len(stream) {
			_, _ = a.Write(stream[n:])
		}
		_ = a.CloseWrite()
		wg.Wait()
	})
}

func socketPair(t *testing.T) (a, b *net.UnixConn) {
	t.Helper()
	fds, err := unix.Socketpair(unix.AF_UNIX, unix.SOCK_STREAM|unix.SOCK_CLOEXEC, 0)
	ok(t, err)
	var out [2]*net.UnixConn
	for i, fd := range fds {
		file := os.NewFile(uintptr(fd), "pair")
		c, err := net.FileConn(file)
		ok(t, err)
		file.Close()
		out[i] = c.(*net.UnixConn)
	}
	return out[0], out[1]
}
