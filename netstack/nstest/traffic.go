package nstest

import (
	"encoding/binary"
	"io"
	"net"
	"testing"
	"time"
)

// patience is how long a test waits for what must not come; what must come
// comes at once.
const patience = 400 * time.Millisecond

// Echo serves TCP in a namespace (nil: the test's own): each caller gets its
// own address as the server sees it. Then it may send a byte and gets it back.
func Echo(t *testing.T, n *NS, addr string) {
	t.Helper()
	var ln net.Listener
	var err error
	in(n, func() { ln, err = net.Listen("tcp4", addr) })
	must(t, err)
	t.Cleanup(func() { ln.Close() })
	go func() {
		for {
			c, err := ln.Accept()
			if err != nil {
				return
			}
			go func() {
				defer c.Close()
				io.WriteString(c, c.RemoteAddr().String()+"\n")
				io.Copy(c, c)
			}()
		}
	}()
}

// Dial calls an Echo and returns the caller's address as the server saw it.
func Dial(n *NS, addr string) (string, error) {
	c, from, err := Open(n, addr)
	if err == nil {
		c.Close()
	}
	return from, err
}

// Open is Dial with the connection left open.
func Open(n *NS, addr string) (net.Conn, string, error) {
	var c net.Conn
	var err error
	// DialTimeout to an address opens its socket on the caller's thread.
	in(n, func() { c, err = net.DialTimeout("tcp4", addr, patience) })
	if err != nil {
		return nil, "", err
	}
	c.SetDeadline(time.Now().Add(10 * time.Second))
	buf := make([]byte, 64)
	k, err := c.Read(buf)
	if err != nil {
		c.Close()
		return nil, "", err
	}
	return c, string(buf[:k-1]), nil
}

// Alive sends a byte over a connection to an Echo and waits for it.
func Alive(c net.Conn) error {
	c.SetDeadline(time.Now().Add(10 * time.Second))
	if _, err := c.Write([]byte{'x'}); err != nil {
		return err
	}
	_, err := io.ReadFull(c, make([]byte, 1))
	return err
}

// Ping sends one ICMP echo request and waits for its reply.
func Ping(n *NS, to string) error {
	var c net.Conn
	var err error
	in(n, func() { c, err = net.Dial("ip4:icmp", to) })
	if err != nil {
		return err
	}
	defer c.Close()
	const echoRequest, echoReply = 8, 0
	msg := []byte{echoRequest, 0, 0, 0, 0x51, 0x56, 0, 1}
	binary.BigEndian.PutUint16(msg[2:], checksum(msg))
	c.SetDeadline(time.Now().Add(patience))
	if _, err := c.Write(msg); err != nil {
		return err
	}
	buf := make([]byte, 256)
	for {
		k, err := c.Read(buf)
		if err != nil {
			return err
		}
		// A raw socket shows the IP header too.
		if header := int(buf[0]&0xf) * 4; k >= header+8 && buf[header] == echoReply {
			return nil
		}
	}
}

func checksum(b []byte) uint16 {
	var sum uint32
	for i := 0; i+1 < len(b); i += 2 {
		sum += uint32(binary.BigEndian.Uint16(b[i:]))
	}
	for sum > 0xffff {
		sum = sum>>16 + sum&0xffff
	}
	return ^uint16(sum)
}

func in(n *NS, fn func()) {
	if n == nil {
		fn()
		return
	}
	n.Do(fn)
}
