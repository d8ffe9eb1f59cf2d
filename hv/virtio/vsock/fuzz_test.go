package vsock

import (
	"errors"
	"net"
	"testing"

	"quantavirt/hv/virtio"
)

type quietHost struct{}

func (quietHost) ConfigChanged()   {}
func (quietHost) NeedsReset(error) {}

// FuzzPackets gives the device any packets of the guest: what it holds stays bounded, and
// what it answers is a whole packet.
func FuzzPackets(f *testing.F) {
	seed := func(list ...header) {
		var b []byte
		for _, h := range list {
			var raw [headerSize]byte
			h.encode(&raw)
			b = append(b, raw[:]...)
		}
		f.Add(b, uint16(100))
	}
	seed(packet(opRequest), packet(opData), packet(opCreditRequest), packet(opShutdown))
	seed(packet(opResponse), header{srcCID: guestCID, dstCID: hostCID, kind: 9, op: 9})
	f.Fuzz(func(t *testing.T, data []byte, room uint16) {
		l, err := net.ListenUnix("unix", &net.UnixAddr{Name: "", Net: "unix"}) // an abstract name of its own
		if err != nil {
			t.Fatal(err)
		}
		d := NewSockets(guestCID, l, func(uint32) (net.Conn, error) {
			ours, theirs := net.Pipe()
			t.Cleanup(func() { theirs.Close() })
			return ours, nil
		})
		defer d.Close()
		d.mu.Lock()
		d.host = quietHost{}
		d.mu.Unlock()
		for rest := data; len(rest) > 0; {
			part := rest[:min(len(rest), headerSize+int(rest[0])%64)]
			rest = rest[len(part):]
			if !d.mayReceive() {
				break
			}
			if _, err := d.receive(&virtio.Chain{Read: [][]byte{part}}); err != nil && !errors.Is(err, virtio.ErrDriver) {
				t.Fatal(err)
			}
			c := virtio.Chain{}
			if room > 0 {
				c.Write = [][]byte{make([]byte, room)}
			}
			n, err := d.send(&c)
			if err != nil && !errors.Is(err, virtio.ErrDriver) || n > uint32(room) || n > 0 && n < headerSize {
				t.Fatal(n, err)
			}
		}
		d.mu.Lock()
		defer d.mu.Unlock()
		if len(d.conns) > maxConns || len(d.resets) > maxResets+maxConns {
			t.Fatalf("%d connections, %d refusals", len(d.conns), len(d.resets))
		}
	})
}
