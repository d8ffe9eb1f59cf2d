package main

import (
	"fmt"
	"os"
	"strconv"
	"strings"

	"golang.org/x/sys/unix"

	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// addNIC adds network device i, which arg of --tap describes.
func addNIC(spec *vmm.Spec, i int, arg string) error {
	name, rest, _ := strings.Cut(arg, ",")
	n := config.NIC{ID: fmt.Sprintf("nic%d", i), TAP: fmt.Sprintf("tap%d", i), MAC: fmt.Sprintf("02:51:56:00:00:%02x", i+1)}
	n.Vhost = fmt.Sprintf("vhost%d", i)
	for opt := range strings.SplitSeq(rest, ",") {
		key, value, _ := strings.Cut(opt, "=")
		switch key {
		case "":
		case "mac":
			n.MAC = value
		case "queues":
			var err error
			if n.Queues, err = strconv.Atoi(value); err != nil || n.Queues < 1 || n.Queues > config.MaxPairs {
				return qverr.New(qverr.Inval, "TAP %s: queues %q: 1 to %d are possible", name, value, config.MaxPairs)
			}
		case "user":
			n.Vhost = ""
		default:
			return qverr.New(qverr.Inval, "TAP %s: option %q is unknown", name, opt)
		}
	}
	for _, file := range n.TAPs() {
		tap, err := openTAP(name, n.Queues > 1)
		if err != nil {
			return err
		}
		spec.Files[file] = tap
	}
	for _, file := range n.Vhosts() {
		f, err := os.OpenFile("/dev/vhost-net", os.O_RDWR, 0)
		if err != nil {
			return qverr.New(qverr.NetVhost, "vhost-net (TAP %s,user does without): %w", name, err)
		}
		spec.Files[file] = f
	}
	spec.Machine.NICs = append(spec.Machine.NICs, n)
	return nil
}

// openTAP opens a TAP, or one more queue of it.
func openTAP(name string, several bool) (*os.File, error) {
	fd, err := unix.Open("/dev/net/tun", unix.O_RDWR|unix.O_CLOEXEC, 0)
	if err != nil {
		return nil, qverr.New(qverr.NetTAP, "open /dev/net/tun: %w", err)
	}
	f := os.NewFile(uintptr(fd), name)
	req, err := unix.NewIfreq(name)
	if err == nil {
		flags := uint16(unix.IFF_TAP | unix.IFF_NO_PI | unix.IFF_VNET_HDR)
		if several {
			flags |= unix.IFF_MULTI_QUEUE
		}
		req.SetUint16(flags)
		err = unix.IoctlIfreq(fd, unix.TUNSETIFF, req)
	}
	if err != nil {
		f.Close()
		return nil, qverr.New(qverr.NetTAP, "TAP %s: %w", name, err)
	}
	return f, nil
}
