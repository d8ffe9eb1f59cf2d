package netstack

import (
	"errors"
	"log/slog"
	"net/netip"
	"os"
	"path"
	"slices"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/netstack/dhcp"
	"quantavirt/netstack/tftp"
)

// Boot is what guests of a network boot from it.
type Boot struct {
	// File is what they load first: a name on the TFTP server, or a URL.
	File string `json:"file"`
	// Server is their TFTP server; by default it is the node, which serves File and
	// Files and nothing else.
	Server netip.Addr `json:"server,omitzero"`
	Files  []string   `json:"files,omitempty"`
}

// maxBootFiles bounds the list.
const maxBootFiles = 64

// local tells whether the node serves files.
func (b *Boot) local() bool {
	return b != nil && !b.Server.IsValid() && !strings.Contains(b.File, "://")
}

// names lists the files that the node serves.
func (b *Boot) names() []string { return append([]string{b.File}, b.Files...) }

func (b *Boot) dhcp() dhcp.Boot {
	if b == nil {
		return dhcp.Boot{}
	}
	return dhcp.Boot{File: b.File, Server: b.Server}
}

func (b *Boot) check(n Network) error {
	switch {
	case !n.DHCP:
		return qverr.New(qverr.NetCreate, "network %s: guests learn by DHCP what to boot, which is off", n.Name)
	case b.File == "":
		return qverr.New(qverr.NetCreate, "network %s names no file to boot", n.Name)
	case !b.local() && len(b.Files) > 0:
		return qverr.New(qverr.NetCreate, "network %s: the node serves no files where %s is booted from elsewhere", n.Name, b.File)
	case len(b.Files) > maxBootFiles:
		return qverr.New(qverr.NetCreate, "network %s: %d files to boot, at most %d are possible", n.Name, len(b.Files), maxBootFiles)
	}
	return nil
}

// bootServer is the TFTP server of one network.
type bootServer struct {
	*tftp.Server
	boot  Boot
	index int
	open  func(name string) (*os.File, error)
	log   *slog.Logger
	done  chan struct{}
}

// reconcileTFTP starts or stops the TFTP server of a network.
func (m *Manager) reconcileTFTP(n *network, want Network, index int, usable bool) error {
	wanted := usable && want.Boot.local()
	if s := n.tftp; s != nil {
		if wanted && s.index == index && slices.Equal(s.boot.names(), want.Boot.names()) && s.alive() {
			return nil
		}
		n.stopTFTP()
	}
	if !wanted {
		return nil
	}
	conn, err := dhcp.Listen(want.Bridge, tftp.Port)
	if err != nil {
		return qverr.New(qverr.NetCreate, "serve TFTP on %s: %w", want.Bridge, err)
	}
	s := &bootServer{boot: *want.Boot, index: index, open: m.opts.BootFile, log: m.log.With("network", want.Name), done: make(chan struct{})}
	s.Server = tftp.New(s, want.MTU)
	go func() {
		defer close(s.done)
		if err := s.Serve(conn); err != nil {
			s.log.Error("TFTP server stops", "err", qverr.New(qverr.NetCreate, "%w", err))
		}
		_ = conn.Close()
	}()
	n.tftp = s
	return nil
}

func (s *bootServer) alive() bool {
	select {
	case <-s.done:
		return false
	default:
		return true
	}
}

func (n *network) stopTFTP() {
	if n.tftp != nil {
		n.tftp.Shutdown()
		<-n.tftp.done
		n.tftp = nil
	}
}

var errNoFile = errors.New("no such file")

// Open implements tftp.Source: what is not named in the network's Boot is not there.
func (s *bootServer) Open(client netip.Addr, name string) (tftp.File, error) {
	name = strings.TrimPrefix(path.Clean("/"+name), "/")
	if s.open == nil || !slices.Contains(s.boot.names(), name) {
		s.log.Debug("a guest asks for a boot file that is not there", "client", client.String(), "file", name)
		return tftp.File{}, errNoFile
	}
	f, err := s.open(name)
	if err != nil {
		s.log.Error("a boot file cannot be opened", "file", name, "err", err)
		return tftp.File{}, errNoFile
	}
	info, err := f.Stat()
	if err != nil {
		_ = f.Close()
		return tftp.File{}, errNoFile
	}
	return tftp.File{ReadCloser: f, Size: info.Size()}, nil
}

// Sent implements tftp.Source.
func (s *bootServer) Sent(client netip.Addr, name string, bytes int64, err error) {
	if err == nil {
		s.log.Info("boot file sent", "client", client.String(), "file", name, "bytes", bytes)
	}
}

// Refused implements tftp.Source.
func (s *bootServer) Refused(client netip.Addr, name string, err error) {
	s.log.Debug("boot file refused", "client", client.String(), "file", name, "err", err)
}
