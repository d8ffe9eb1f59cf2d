package main

import (
	"fmt"
	"io"
	"net"

	"github.com/mdlayher/vsock"
)

// serve answers guests on TCP and vsock, as long as the program runs. What a guest
// wants is the first byte that it sends: 's' it sends, 'r' it receives, 'a' it asks.
func serve() error {
	tcp, err := net.Listen("tcp", fmt.Sprintf("%s:%d", hostAddress, peerPort))
	if err != nil {
		return err
	}
	vs, err := vsock.Listen(peerPort, nil)
	if err != nil {
		return err
	}
	for _, l := range []net.Listener{tcp, vs} {
		go func() {
			for {
				conn, err := l.Accept()
				if err != nil {
					return
				}
				go func() {
					defer func() { _ = conn.Close() }()
					answer(conn)
				}()
			}
		}()
	}
	return nil
}

func answer(conn net.Conn) {
	var kind [1]byte
	if _, err := io.ReadFull(conn, kind[:]); err != nil {
		return
	}
	buf := make([]byte, 128<<10)
	switch kind[0] {
	case 's':
		for {
			if _, err := conn.Read(buf); err != nil {
				return // its end of the data is ours too
			}
		}
	case 'r':
		for {
			if _, err := conn.Write(buf); err != nil {
				return
			}
		}
	case 'a':
		for {
			n, err := conn.Read(buf[:1])
			if err != nil {
				return
			}
			if _, err := conn.Write(buf[:n]); err != nil {
				return
			}
		}
	}
}
