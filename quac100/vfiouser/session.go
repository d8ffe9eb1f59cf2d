package vfiouser

import (
	"errors"
	"fmt"
	"io"
	"log/slog"
	"net"
	"sync"
	"syscall"

	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
)

// Device is the card that is served; *model.Card is one.
type Device interface {
	// Read and Write are accesses of BAR0, ReadConfig and WriteConfig of the configuration space. None may wait.
	Read(off uint64, p []byte)
	Write(off uint64, p []byte)
	ReadConfig(off int, p []byte)
	WriteConfig(off int, p []byte)
	// PowerCycle is the machine's reset.
	PowerCycle()
	// Connect gives the device its memory and interrupts, or takes them away.
	Connect(model.Host)
}

// Indices of regions and the counts that the card reports.
const (
	regionBAR0   = 0
	regionConfig = 7
	regionCount  = 9
	irqCount     = 5
	deviceReset  = 1 << 0
	devicePCI    = 1 << 1
	regionRead   = 1 << 0
	regionWrite  = 1 << 1
	irqByEventfd = 1 << 0
)

// session serves one client.
type session struct {
	conn
	dev   Device
	log   *slog.Logger
	space space
	irqs  vectors

	dma     sync.Mutex // one DMA message at a time
	wait    sync.Mutex
	replies map[uint16]chan reply
	nextID  uint16
	gone    bool
	maxXfer uint64
	ready   bool // the versions are agreed
}

type reply struct {
	errno  uint32
	failed bool
	data   []byte
}

func newSession(c *net.UnixConn, dev Device, log *slog.Logger) *session {
	return &session{conn: conn{UnixConn: c}, dev: dev, log: log, replies: make(map[uint16]chan reply), maxXfer: maxData}
}

// serve answers the client until it leaves. The card is then as after power-up and connected to nothing.
func (s *session) serve() error {
	err := s.loop()
	s.Close()
	s.fail()
	s.dev.Connect(nil)
	s.dev.PowerCycle()
	s.space.close()
	s.irqs.close()
	if errors.Is(err, io.EOF) {
		return nil
	}
	return err
}

func (s *session) loop() error {
	for {
		m, err := s.receive()
		if err != nil {
			return err
		}
		err = s.dispatch(m)
		m.closeFDs()
		if err != nil {
			return err
		}
	}
}

// dispatch does what one message asks for. An error ends the session.
func (s *session) dispatch(m *message) error {
	if m.flags&typeMask == typeReply {
		s.deliver(m)
		return nil
	}
	if !s.ready && m.cmd != cmdVersion {
		return fmt.Errorf("command %d before the version", m.cmd)
	}
	out, err := s.handle(m)
	if m.cmd == cmdVersion && err != nil {
		return errors.Join(fmt.Errorf("version: %w", err), s.answer(m, nil, err))
	}
	if err != nil {
		s.log.Debug("request refused", "command", m.cmd, "error", err)
	}
	return s.answer(m, out, err)
}

func (s *session) answer(m *message, out []byte, err error) error {
	if m.flags&flagNoReply != 0 {
		return nil
	}
	h := header{id: m.id, cmd: m.cmd, flags: typeReply}
	if err != nil {
		errno := syscall.EINVAL
		errors.As(err, &errno)
		h.flags |= flagError
		h.errno = uint32(errno)
		out = nil
	}
	return s.write(h, out)
}

func (s *session) handle(m *message) ([]byte, error) {
	switch m.cmd {
	case cmdVersion:
		return s.version(m.payload)
	case cmdDMAMap:
		return nil, s.mapDMA(m)
	case cmdDMAUnmap:
		u, err := parseDMAUnmap(m.payload)
		if err != nil {
			return nil, err
		}
		s.space.remove(u)
		return m.payload[:unmapSize], nil
	case cmdGetInfo:
		return u32s(infoSize, deviceReset|devicePCI, regionCount, irqCount), nil
	case cmdGetRegionInfo:
		return regionInfo(m.payload)
	case cmdGetIRQInfo:
		return irqInfo(m.payload)
	case cmdSetIRQs:
		set, err := parseIRQSet(m.payload)
		if err != nil {
			return nil, err
		}
		return nil, s.irqs.set(set, m)
	case cmdRegionRead:
		return s.readRegion(m.payload)
	case cmdRegionWrite:
		return s.writeRegion(m.payload)
	case cmdReset:
		s.dev.PowerCycle()
		return nil, nil
	}
	return nil, syscall.EOPNOTSUPP
}

func u32s(v ...uint32) []byte {
	var b []byte
	for _, x := range v {
		b = ne.AppendUint32(b, x)
	}
	return b
}

func (s *session) version(b []byte) ([]byte, error) {
	v, err := parseVersion(b)
	if err != nil {
		return nil, err
	}
	if v.major != 0 || s.ready {
		return nil, syscall.EINVAL
	}
	s.ready = true
	s.maxXfer = v.caps.MaxDataXfer
	s.dev.Connect(s)
	mine := version{caps: capabilities{MaxMsgFDs: maxFDs, MaxDataXfer: maxData, MaxDMAMaps: maxDMAMaps, PageSizes: 4096}}
	return mine.append(nil), nil
}

func (s *session) mapDMA(m *message) error {
	d, err := parseDMAMap(m.payload)
	if err != nil {
		return err
	}
	fd := -1
	if len(m.fds) > 0 {
		fd = m.fds[0]
	}
	return s.space.add(d, fd)
}

func regionInfo(b []byte) ([]byte, error) {
	if len(b) < regionSize {
		return nil, errShort
	}
	index := ne.Uint32(b[8:])
	size, flags := uint64(0), uint32(regionRead|regionWrite)
	switch {
	case index == regionBAR0:
		size = regs.BARSize
	case index == regionConfig:
		size = regs.CfgSize
	case index < regionCount:
		flags = 0
	default:
		return nil, syscall.EINVAL
	}
	out := u32s(regionSize, flags, index, 0)
	out = ne.AppendUint64(out, size)
	return ne.AppendUint64(out, 0), nil
}

func irqInfo(b []byte) ([]byte, error) {
	if len(b) < irqInfoSize {
		return nil, errShort
	}
	index := ne.Uint32(b[8:])
	switch {
	case index == irqMSIX:
		return u32s(irqInfoSize, irqByEventfd, index, regs.MSIXVectors), nil
	case index < irqCount:
		return u32s(irqInfoSize, 0, index, 0), nil
	}
	return nil, syscall.EINVAL
}

// bounds returns the region's size if the access lies inside of it.
func (r *regionIO) check() error {
	size := uint64(0)
	switch r.region {
	case regionBAR0:
		size = regs.BARSize
	case regionConfig:
		size = regs.CfgSize
	}
	if r.count == 0 || r.count > maxData || r.offset > size || uint64(r.count) > size-r.offset {
		return syscall.EINVAL
	}
	return nil
}

func (s *session) readRegion(b []byte) ([]byte, error) {
	r, err := parseRegionIO(b)
	if err == nil {
		err = r.check()
	}
	if err != nil {
		return nil, err
	}
	r.data = make([]byte, r.count)
	if r.region == regionConfig {
		s.dev.ReadConfig(int(r.offset), r.data)
	} else {
		pieces(r.offset, r.data, s.dev.Read)
	}
	return r.append(nil), nil
}

func (s *session) writeRegion(b []byte) ([]byte, error) {
	r, err := parseRegionIO(b)
	if err == nil {
		err = r.check()
	}
	if err == nil && len(r.data) < int(r.count) {
		err = errShort
	}
	if err != nil {
		return nil, err
	}
	data := r.data[:r.count]
	if r.region == regionConfig {
		s.dev.WriteConfig(int(r.offset), data)
	} else {
		pieces(r.offset, data, s.dev.Write)
	}
	r.data = nil
	return r.append(nil), nil
}

// pieces passes an access on. What is larger than the bus's 8 bytes becomes several, as a bridge would do.
func pieces(off uint64, p []byte, f func(off uint64, p []byte)) {
	for len(p) > 8 {
		n := 8 - int(off%8)
		f(off, p[:n])
		off, p = off+uint64(n), p[n:]
	}
	f(off, p)
}
