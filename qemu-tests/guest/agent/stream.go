package main

import (
	"errors"
	"fmt"
	"io"
	"net"
	"strconv"
	"time"

	"github.com/mdlayher/vsock"
	"github.com/vishvananda/netlink"
)

// streamConn is a connection by TCP or vsock.
type streamConn interface {
	net.Conn
	CloseWrite() error
}

// address gives the network card one: address 10.0.0.2/30.
func address(args []string) (string, error) {
	if len(args) != 1 {
		return "", errors.New("one word is needed")
	}
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return "", err
	}
	addr, err := netlink.ParseAddr(args[0])
	if err != nil {
		return "", err
	}
	return "", errors.Join(netlink.AddrReplace(link, addr), netlink.LinkSetUp(link))
}

// streamBench moves data on one connection with a program of the host, which the
// first byte tells what to do (qemu-tests/bench/runner/peer.go), and says how
// many bytes or questions there were in which time:
//
//	bench-stream tcp|vsock send|receive|ask ADDRESS:PORT|PORT MILLISECONDS
func streamBench(args []string) (string, error) {
	if len(args) != 4 {
		return "", errors.New("four words are needed")
	}
	ms, err := strconv.Atoi(args[3])
	if err != nil {
		return "", err
	}
	conn, err := dialPeer(args[0], args[2])
	if err != nil {
		return "", err
	}
	defer conn.Close()
	if err := conn.SetDeadline(time.Now().Add(limit)); err != nil {
		return "", err
	}
	var kind byte
	var move func(streamConn, time.Time) (int, error)
	switch args[1] {
	case "send":
		kind, move = 's', send
	case "receive":
		kind, move = 'r', receive
	case "ask":
		kind, move = 'a', ask
	default:
		return "", fmt.Errorf("%q is unknown", args[1])
	}
	if _, err := conn.Write([]byte{kind}); err != nil {
		return "", err
	}
	return timed(1, func(int) (int, error) { return move(conn, time.Now().Add(time.Duration(ms)*time.Millisecond)) })
}

func dialPeer(kind, address string) (streamConn, error) {
	if kind == "tcp" {
		conn, err := net.DialTimeout("tcp", address, limit)
		if err != nil {
			return nil, err
		}
		return conn.(*net.TCPConn), nil
	}
	port, err := strconv.ParseUint(address, 10, 32)
	if err != nil {
		return nil, err
	}
	return vsock.Dial(vsock.Host, uint32(port), nil)
}

// piece is how much is written or read at once, in bytes.
const piece = 128 << 10

// send ends when the peer has had everything.
func send(conn streamConn, end time.Time) (total int, err error) {
	buf := make([]byte, piece)
	for time.Now().Before(end) {
		n, err := conn.Write(buf)
		total += n
		if err != nil {
			return total, err
		}
	}
	if err := conn.CloseWrite(); err != nil {
		return total, err
	}
	if _, err := conn.Read(buf[:1]); !errors.Is(err, io.EOF) {
		return total, fmt.Errorf("the peer did not close (%w)", err)
	}
	return total, nil
}

func receive(conn streamConn, end time.Time) (total int, err error) {
	buf := make([]byte, piece)
	for time.Now().Before(end) {
		n, err := conn.Read(buf)
		total += n
		if err != nil {
			return total, err
		}
	}
	return total, nil
}

// ask sends a byte and waits for the answer, over and over.
func ask(conn streamConn, end time.Time) (asked int, err error) {
	var b [1]byte
	for time.Now().Before(end) {
		if _, err := conn.Write(b[:]); err != nil {
			return asked, err
		}
		if _, err := io.ReadFull(conn, b[:]); err != nil {
			return asked, err
		}
		asked++
	}
	return asked, nil
}
