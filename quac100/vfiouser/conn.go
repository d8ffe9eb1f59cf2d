package vfiouser

import (
	"errors"
	"fmt"
	"io"
	"net"
	"sync"

	"golang.org/x/sys/unix"
)

// conn sends and receives messages with descriptors.
type conn struct {
	*net.UnixConn
	oob [128]byte // holds the control message of maxFDs descriptors
	hdr [headerSize]byte
	buf []byte

	send sync.Mutex
}

// message is one received message. Its payload is valid until the next receive; its descriptors are the receiver's.
type message struct {
	header
	payload []byte
	fds     []int
}

// take returns the descriptors and leaves none to be closed.
func (m *message) take() []int {
	fds := m.fds
	m.fds = nil
	return fds
}

func (m *message) closeFDs() {
	for _, fd := range m.take() {
		unix.Close(fd)
	}
}

// receive reads the next message. The error is io.EOF if the other side has left between two messages.
func (c *conn) receive() (*message, error) {
	m := &message{}
	if err := c.fill(m, c.hdr[:]); err != nil {
		m.closeFDs()
		return nil, err
	}
	h, err := parseHeader(c.hdr[:])
	if err != nil {
		m.closeFDs()
		return nil, err
	}
	m.header = h
	n := int(h.size) - headerSize
	if cap(c.buf) < n {
		c.buf = make([]byte, max(n, 4096))
	}
	m.payload = c.buf[:n]
	if err := c.fill(m, m.payload); err != nil {
		m.closeFDs()
		if errors.Is(err, io.EOF) {
			err = io.ErrUnexpectedEOF
		}
		return nil, err
	}
	return m, nil
}

// fill reads all of b, and the descriptors that come with any part of it.
func (c *conn) fill(m *message, b []byte) error {
	for done := 0; done < len(b); {
		n, oobn, flags, _, err := c.ReadMsgUnix(b[done:], c.oob[:])
		if oobn > 0 {
			if err := m.addFDs(c.oob[:oobn]); err != nil {
				return err
			}
		}
		switch {
		case err != nil:
			return err
		case flags&unix.MSG_CTRUNC != 0:
			return errors.New("descriptors were lost")
		case n == 0 && done == 0:
			return io.EOF
		case n == 0:
			return io.ErrUnexpectedEOF
		}
		done += n
	}
	return nil
}

func (m *message) addFDs(oob []byte) error {
	msgs, err := unix.ParseSocketControlMessage(oob)
	if err != nil {
		return fmt.Errorf("control message: %w", err)
	}
	for i := range msgs {
		fds, err := unix.ParseUnixRights(&msgs[i])
		if err != nil {
			continue // not descriptors
		}
		m.fds = append(m.fds, fds...)
	}
	if len(m.fds) > maxFDs {
		return fmt.Errorf("%d descriptors in one message", len(m.fds))
	}
	return nil
}

// write sends one message, with one system call as long as the socket has room: QEMU takes a short header for the end.
func (c *conn) write(h header, payload []byte, fds ...int) error {
	b := make([]byte, headerSize, headerSize+len(payload))
	h.size = uint32(headerSize + len(payload))
	h.put(b)
	b = append(b, payload...)
	c.send.Lock()
	defer c.send.Unlock()
	if len(fds) == 0 {
		_, err := c.Write(b)
		return err
	}
	n, _, err := c.WriteMsgUnix(b, unix.UnixRights(fds...), nil)
	if err == nil && n < len(b) {
		_, err = c.Write(b[n:])
	}
	return err
}
