package lab

import (
	"context"
	"fmt"
	"net"
	"os/exec"
	"path/filepath"
	"runtime"

	"golang.org/x/sys/unix"
)

// Netboot makes a node boot from the network of its only card, which is in a
// namespace of its own. Needs root.
type Netboot struct {
	// ROM gives the card iPXE as its option ROM. SeaBIOS boots from no card
	// without one; OVMF then uses its own network stack.
	ROM bool

	// Serve starts in the namespace, at its interface RackInterface, what the
	// node boots from. It is called before QEMU is started. The hash is that of
	// the node's token, "" when the node makes its own.
	Serve func(namespace, tokenHash string) error
}

// BootIndex is the place of the node's card in the boot order. A disk that comes
// before or behind it is among Options.Extra, with a bootindex of its own.
const BootIndex = 5

// RackInterface is the far end of the node's card.
const RackInterface = "outside"

// MAC is the address of a node's first card.
const MAC = "52:54:00:71:76:01"

// uplinkArgs are the node's first card and what it is plugged into.
func (l launch) uplinkArgs() []string {
	nb := l.opts.Netboot
	if nb == nil {
		return []string{
			"-netdev", fmt.Sprintf("user,id=uplink,hostfwd=tcp:127.0.0.1:%d-:9400", l.apiPort),
			"-device", "virtio-net-pci,netdev=uplink,mac=" + MAC + ",romfile="}
	}
	card := fmt.Sprintf("virtio-net-pci,netdev=uplink,bootindex=%d,mac=%s", BootIndex, MAC)
	if !nb.ROM {
		card += ",romfile="
	}
	return []string{"-netdev", fmt.Sprintf("tap,id=uplink,fd=%d,vhost=off", l.tapFD), "-device", card}
}

// Dial connects to an address as seen from where the node's URL leads to it: its
// namespace, or this machine.
func (n *Node) Dial(ctx context.Context, network, address string) (net.Conn, error) {
	if !n.FromInside {
		return new(net.Dialer).DialContext(ctx, network, address)
	}
	type result struct {
		conn net.Conn
		err  error
	}
	done := make(chan result)
	go func() {
		// The thread is never unlocked, so it ends with the goroutine and takes
		// the namespace with it.
		runtime.LockOSThread()
		conn, err := dialIn(ctx, n.Namespace, network, address)
		done <- result{conn, err}
	}()
	r := <-done
	return r.conn, r.err
}

func dialIn(ctx context.Context, namespace, network, address string) (net.Conn, error) {
	fd, err := unix.Open(filepath.Join("/run/netns", namespace), unix.O_RDONLY|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, fmt.Errorf("lab: namespace %s: %w", namespace, err)
	}
	defer unix.Close(fd)
	if err := unix.Setns(fd, unix.CLONE_NEWNET); err != nil {
		return nil, fmt.Errorf("lab: enter namespace %s: %w", namespace, err)
	}
	return new(net.Dialer).DialContext(ctx, network, address)
}

// Inside returns a command that runs in a namespace.
func Inside(ctx context.Context, namespace, name string, args ...string) *exec.Cmd {
	return exec.CommandContext(ctx, "ip", append([]string{"netns", "exec", namespace, name}, args...)...)
}
