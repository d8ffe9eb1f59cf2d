// Command guesttool runs in the guest of the nested test, which has busybox and
// nothing else.
//
//	guesttool vsock PORT TEXT          sends TEXT to the host and prints its answer
//	guesttool answer PORT              takes one connection at a vsock port and answers a line
//	guesttool echo ADDRESS COUNT SIZE  sends SIZE bytes on each of COUNT connections to
//	                                   one that sends them back, and prints "equal" if it did
package main

import (
	"bufio"
	"bytes"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strconv"
	"sync"

	"github.com/mdlayher/vsock"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("guesttool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	switch {
	case len(args) == 3 && args[0] == "vsock":
		return talk(args[1], args[2])
	case len(args) == 2 && args[0] == "answer":
		return answer(args[1])
	case len(args) == 4 && args[0] == "echo":
		count, err := strconv.Atoi(args[2])
		if err != nil {
			return err
		}
		size, err := strconv.Atoi(args[3])
		if err != nil {
			return err
		}
		return echoes(args[1], count, size)
	}
	return fmt.Errorf("usage: guesttool vsock PORT TEXT, answer PORT, echo ADDRESS COUNT SIZE")
}

func talk(arg, text string) error {
	port, err := strconv.ParseUint(arg, 10, 32)
	if err != nil {
		return err
	}
	conn, err := vsock.Dial(vsock.Host, uint32(port), nil)
	if err != nil {
		return err
	}
	defer conn.Close()
	if _, err := io.WriteString(conn, text+"\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	fmt.Printf("%s\n", answer)
	return err
}

func answer(arg string) error {
	port, err := strconv.ParseUint(arg, 10, 32)
	if err != nil {
		return err
	}
	l, err := vsock.Listen(uint32(port), nil)
	if err != nil {
		return err
	}
	defer l.Close()
	fmt.Println("listening")
	conn, err := l.Accept()
	if err != nil {
		return err
	}
	defer conn.Close()
	line, err := bufio.NewReader(conn).ReadString('\n')
	if err != nil {
		return err
	}
	_, err = io.WriteString(conn, "guest heard "+line)
	return err
}

// echoes runs all connections at once.
func echoes(address string, count, size int) error {
	errs := make([]error, count)
	var wg sync.WaitGroup
	for i := range count {
		wg.Go(func() { errs[i] = echo(address, byte(i), size) })
	}
	wg.Wait()
	if err := errors.Join(errs...); err != nil {
		return err
	}
	fmt.Println("equal")
	return nil
}

func echo(address string, seed byte, size int) error {
	conn, err := net.Dial("tcp", address)
	if err != nil {
		return err
	}
	defer conn.Close()
	block := make([]byte, 64<<10)
	for i := range block {
		block[i] = byte(i*7) + byte(i>>8) + seed
	}
	sent := make(chan error, 1)
	go func() {
		for left := size; left > 0; left -= len(block) {
			if _, err := conn.Write(block[:min(left, len(block))]); err != nil {
				sent <- err
				return
			}
		}
		sent <- conn.(*net.TCPConn).CloseWrite()
	}()
	got := make([]byte, len(block))
	for left := size; left > 0; left -= len(block) {
		n := min(left, len(block))
		if _, err := io.ReadFull(conn, got[:n]); err != nil {
			return err
		}
		if !bytes.Equal(got[:n], block[:n]) {
			return fmt.Errorf("other bytes came back, %d before the end", left)
		}
	}
	return <-sent
}
