// Command guesttool runs in the guest of the nested test, which has busybox and
// nothing else.
//
//	guesttool vsock PORT TEXT   sends TEXT to the host and prints its answer
package main

import (
	"fmt"
	"io"
	"os"
	"strconv"

	"golang.org/x/sys/unix"
)

func main() {
	if err := run(os.Args[1:]); err != nil {
		fmt.Println("guesttool:", err)
		os.Exit(1)
	}
}

func run(args []string) error {
	if len(args) != 3 || args[0] != "vsock" {
		return fmt.Errorf("usage: guesttool vsock PORT TEXT")
	}
	port, err := strconv.ParseUint(args[1], 10, 32)
	if err != nil {
		return err
	}
	fd, err := unix.Socket(unix.AF_VSOCK, unix.SOCK_STREAM, 0)
	if err != nil {
		return err
	}
	conn := os.NewFile(uintptr(fd), "vsock")
	defer conn.Close()
	if err := unix.Connect(fd, &unix.SockaddrVM{CID: unix.VMADDR_CID_HOST, Port: uint32(port)}); err != nil {
		return err
	}
	if _, err := io.WriteString(conn, args[2]+"\n"); err != nil {
		return err
	}
	answer, err := io.ReadAll(conn)
	fmt.Printf("%s\n", answer)
	return err
}
