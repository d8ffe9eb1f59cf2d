package process

import (
	"io"
	"net"
	"sync"

	"quantavirt/hv/limit"
	vconsole "quantavirt/hv/virtio/console"
	"quantavirt/hv/vmm"
	"quantavirt/hv/vmm/ring"
	"quantavirt/internal/qverr"
)

// consoleLimits hold what a guest prints: each byte is written into the ring on the
// data volume, which other VMs need as well. It is within what the ring takes: what
// comes by virtio waits, where the ring would drop it.
var consoleLimits = limit.Limits{Bytes: limit.Rate{PerSecond: ring.Rate, Burst: ring.Burst / 4}}

// port is the named port of the console, or nil.
func (vm *VM) port(name string) *vconsole.Stream {
	if vm.virtioConsole == nil {
		return nil
	}
	return vm.virtioConsole.Stream(name)
}

// attachPort takes a port for one connection. It is nil when there is no such port, and
// QV_ERR_BUSY when another has it.
func (vm *VM) attachPort(name string) (func(net.Conn, io.Reader), error) {
	s := vm.port(name)
	if s == nil {
		return nil, nil
	}
	if err := s.Attach(); err != nil {
		return nil, qverr.New(qverr.CodeOf(err), "port %s: %w", name, err)
	}
	return func(conn net.Conn, in io.Reader) { servePort(s, conn, in) }, nil
}

// servePort copies in both directions until either side ends.
func servePort(s *vconsole.Stream, conn net.Conn, in io.Reader) {
	var wg sync.WaitGroup
	wg.Go(func() {
		_, _ = io.Copy(conn, s)
		conn.Close() // ends the other direction too
	})
	_, _ = io.Copy(s, in)
	s.Detach()
	wg.Wait()
}

// putConsole tells the guest how large the terminal is.
func (vm *VM) putConsole(name string, size vmm.ConsoleSize) error {
	if name != vmm.ConsoleVirtio {
		return qverr.New(qverr.NoEnt, "console %q has no size", name)
	}
	vm.virtioConsole.SetSize(size.Columns, size.Rows)
	return nil
}
