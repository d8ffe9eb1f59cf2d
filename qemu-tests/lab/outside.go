package lab

import (
	"fmt"
	"os"
	"os/exec"

	"golang.org/x/sys/unix"
)

// outsideTAP makes a network namespace and a TAP whose far end lies in it: the
// card stays QEMU's by its descriptor, while the interface moves.
func outsideTAP(node string) (tap *os.File, namespace string, err error) {
	if os.Geteuid() != 0 {
		return nil, "", fmt.Errorf("lab: a network namespace for %s needs root rights", node)
	}
	namespace = "qvlab-" + node
	name := fmt.Sprintf("qvl%d", os.Getpid())
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, "", fmt.Errorf("lab: /dev/net/tun: %w", err)
	}
	tap = os.NewFile(uintptr(fd), "tap")
	defer func() {
		if err != nil {
			_ = tap.Close()
		}
	}()
	ifr, err := unix.NewIfreq(name)
	if err != nil {
		return nil, "", err
	}
	ifr.SetUint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
	if err := unix.IoctlIfreq(fd, unix.TUNSETIFF, ifr); err != nil {
		return nil, "", fmt.Errorf("lab: TAP %s: %w", name, err)
	}
	for _, args := range [][]string{
		{"netns", "add", namespace},
		{"link", "set", name, "netns", namespace},
		{"-n", namespace, "link", "set", "lo", "up"},
		{"-n", namespace, "link", "set", name, "name", "outside"},
		{"-n", namespace, "link", "set", "outside", "up"},
	} {
		if out, err := exec.Command("ip", args...).CombinedOutput(); err != nil {
			return nil, "", fmt.Errorf("lab: ip %v: %w: %s", args, err, out)
		}
	}
	return tap, namespace, nil
}

func deleteNamespace(name string) error {
	if out, err := exec.Command("ip", "netns", "del", name).CombinedOutput(); err != nil {
		return fmt.Errorf("lab: ip netns del %s: %w: %s", name, err, out)
	}
	return nil
}
