package netboot

import (
	"errors"
	"io"
	"net"
	"net/netip"
	"strconv"
	"sync"
	"time"

	"github.com/pin/tftp/v3"

	"quantavirt/internal/qverr"
)

// Bounds of the TFTP service. A request may come from an address that is not
// its sender's, so the repetitions that it can cause are few.
const (
	tftpTimeout   = time.Second
	tftpRetries   = 5
	tftpTransfers = 128
	tftpPerClient = 4
	tftpOverhead  = 20 + 8 + 4 // of IPv4, UDP and a DATA packet, in bytes
)

// tftpServer sends files of the tree, and takes none.
type tftpServer struct {
	*booter
	slots chan struct{}

	mu     sync.Mutex
	active map[netip.Addr]int
}

// newTFTP makes the service; mtu is that of the interface, in bytes.
func newTFTP(b *booter, mtu int) *tftp.Server {
	t := &tftpServer{booter: b, slots: make(chan struct{}, tftpTransfers), active: make(map[netip.Addr]int)}
	s := tftp.NewServer(t.read, nil)
	s.SetTimeout(tftpTimeout)
	s.SetRetries(tftpRetries)
	// The library counts without the header of TFTP: a packet of the largest
	// block would be fragmented, which boot ROMs do not put together.
	s.SetBlockSize(mtu - tftpOverhead)
	return s
}

// read sends one file. The client's reading of its size, and then its going
// away, is how PXE begins.
func (t *tftpServer) read(name string, to io.ReaderFrom) error {
	client := tftpClient(to)
	release, err := t.enter(client)
	if err != nil {
		t.log.Warn("TFTP request refused", "client", client, "file", name, "err", err)
		return err
	}
	defer release()
	f, info, err := t.tree.open(name)
	if err != nil {
		t.record(Identity{}, client, "TFTP "+strconv.Quote(name), "no such file")
		return errors.New("no such file")
	}
	defer f.Close()
	if o, ok := to.(tftp.OutgoingTransfer); ok {
		o.SetSize(info.Size())
	}
	n, err := to.ReadFrom(f)
	if err != nil {
		t.log.Debug("TFTP transfer ended early", "client", client, "file", name, "bytes", n, "err", err)
		return err
	}
	t.record(Identity{}, client, "TFTP "+name, strconv.FormatInt(n, 10)+" bytes")
	return nil
}

func tftpClient(to io.ReaderFrom) netip.Addr {
	o, ok := to.(tftp.OutgoingTransfer)
	if !ok {
		return netip.Addr{}
	}
	addr := o.RemoteAddr()
	return (*net.UDPAddr)(&addr).AddrPort().Addr().Unmap()
}

// enter takes a slot. Errors carry QV_ERR_LIMIT.
func (t *tftpServer) enter(client netip.Addr) (release func(), err error) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active[client] >= tftpPerClient {
		return nil, qverr.New(qverr.Limit, "%s has %d transfers already", client, tftpPerClient)
	}
	select {
	case t.slots <- struct{}{}:
	default:
		return nil, qverr.New(qverr.Limit, "%d transfers are running", tftpTransfers)
	}
	t.active[client]++
	return func() { t.leave(client) }, nil
}

func (t *tftpServer) leave(client netip.Addr) {
	t.mu.Lock()
	defer t.mu.Unlock()
	if t.active[client]--; t.active[client] == 0 {
		delete(t.active, client)
	}
	<-t.slots
}
