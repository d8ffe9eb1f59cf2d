package console

import (
	"errors"
	"io"
	"testing"

	"quantavirt/hv/virtio"
)

// FuzzControl gives the control queue and a port any bytes, one message after the other:
// what waits stays bounded, and each message is a whole one.
func FuzzControl(f *testing.F) {
	f.Add([]byte{0, 0, 0, 0, 0, 0, 1, 0, 1, 0, 0, 0, 3, 0, 1, 0, 1, 0, 0, 0, 6, 0, 1, 0}, uint8(8))
	f.Add([]byte{255, 255, 255, 255, 6, 0, 1, 0}, uint8(3))
	f.Fuzz(func(t *testing.T, data []byte, room uint8) {
		d, err := New(io.Discard, Options{Ports: []string{"one", "two"}})
		if err != nil {
			t.Fatal(err)
		}
		s := d.Stream("two")
		if err := s.Attach(); err != nil {
			t.Fatal(err)
		}
		for rest := data; len(rest) > 0; {
			part := rest[:min(len(rest), messageSize)]
			rest = rest[len(part):]
			c := virtio.Chain{Read: [][]byte{part}}
			for _, handle := range []func(*virtio.Chain) (uint32, error){d.control.receive, s.transmit, d.transmit} {
				if _, err := handle(&c); err != nil && !errors.Is(err, virtio.ErrDriver) {
					t.Fatal(err)
				}
			}
		}
		told := 0
		for d.control.pending() {
			c := virtio.Chain{}
			if room > 0 {
				c.Write = [][]byte{make([]byte, room)}
			}
			if n, err := d.control.send(&c); err != nil || n > uint32(room) {
				t.Fatal(n, err)
			}
			if told++; told > len(order)*3 {
				t.Fatal("more to tell than there is")
			}
		}
	})
}
