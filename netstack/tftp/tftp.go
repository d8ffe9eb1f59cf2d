package tftp

import (
	"io"
	"net"
	"net/netip"
	"sync"
	"time"

	"github.com/pin/tftp/v3"

	"quantavirt/internal/qverr"
)

// Port is that of TFTP.
const Port = 69

// Bounds of the service. A request may come from an address that is not its
// sender's, so the repetitions that it can cause are few.
const (
	timeout   = time.Second
	retries   = 5
	transfers = 128
	perClient = 4
	overhead  = 20 + 8 + 4 // of IPv4, UDP and a DATA packet, in bytes
)

// File is what is sent, and its size in bytes.
type File struct {
	io.ReadCloser
	Size int64
}

// Source has the files of a server. Its methods are called from many goroutines.
type Source interface {
	// Open finds a file; the client is told of its error.
	Open(client netip.Addr, name string) (File, error)
	// Sent tells how a transfer ended: bytes of the file, and nil or why not all. The
	// client's reading of the size, and then its going away, is how PXE begins.
	Sent(client netip.Addr, name string, bytes int64, err error)
	// Refused tells of a client that has too many transfers (QV_ERR_LIMIT).
	Refused(client netip.Addr, name string, err error)
}

// Server is the service.
type Server struct {
	*tftp.Server
	source Source
	slots  chan struct{}

	mu     sync.Mutex
	active map[netip.Addr]int
}

// New makes a server of the files of source; mtu is that of the interface, in bytes.
// Serve, with a socket of port Port, runs it until Shutdown.
func New(source Source, mtu int) *Server {
	s := &Server{source: source, slots: make(chan struct{}, transfers), active: make(map[netip.Addr]int)}
	s.Server = tftp.NewServer(s.read, nil)
	s.SetTimeout(timeout)
	s.SetRetries(retries)
	// The library counts without the header of TFTP: a packet of the largest
	// block would be fragmented, which boot ROMs do not put together.
	s.SetBlockSize(mtu - overhead)
	return s
}

// read sends one file.
func (s *Server) read(name string, to io.ReaderFrom) error {
	client := clientOf(to)
	release, err := s.enter(client)
	if err != nil {
		s.source.Refused(client, name, err)
		return err
	}
	defer release()
	f, err := s.source.Open(client, name)
	if err != nil {
		return err
	}
	defer f.Close()
	if o, ok := to.(tftp.OutgoingTransfer); ok {
		o.SetSize(f.Size)
	}
	n, err := to.ReadFrom(f)
	s.source.Sent(client, name, n, err)
	return err
}

func clientOf(to io.ReaderFrom) netip.Addr {
	o, ok := to.(tftp.OutgoingTransfer)
	if !ok {
		return netip.Addr{}
	}
	addr := o.RemoteAddr()
	return (*net.UDPAddr)(&addr).AddrPort().Addr().Unmap()
}

// enter takes a slot. Errors carry QV_ERR_LIMIT.
func (s *Server) enter(client netip.Addr) (release func(), err error) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[client] >= perClient {
		return nil, qverr.New(qverr.Limit, "%s has %d transfers already", client, perClient)
	}
	select {
	case s.slots <- struct{}{}:
	default:
		return nil, qverr.New(qverr.Limit, "%d transfers are running", transfers)
	}
	s.active[client]++
	return func() { s.leave(client) }, nil
}

func (s *Server) leave(client netip.Addr) {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.active[client]--; s.active[client] == 0 {
		delete(s.active, client)
	}
	<-s.slots
}
