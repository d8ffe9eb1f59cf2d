package main

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/binary"
	"encoding/hex"
	"fmt"
	"io"
	"net"
	"net/http"
	"net/netip"
	"os"
	"path/filepath"
	"strconv"
	"strings"
	"time"

	"github.com/insomniacslk/dhcp/dhcpv4"
	"github.com/insomniacslk/dhcp/dhcpv4/nclient4"
	"github.com/mdlayher/vsock"
	"github.com/vishvananda/netlink"
	"golang.org/x/sys/unix"
)

const limit = 30 * time.Second

var commands = map[string]func([]string) (string, error){
	"uptime":       func([]string) (string, error) { return strconv.FormatFloat(uptime(), 'f', 2, 64), nil },
	"dhcp":         dhcp,
	"get":          get,
	"dial":         dial,
	"ping":         ping,
	"vsock":        vsockGet,
	"write":        diskWrite,
	"sum":          diskSum,
	"random":       random,
	"memory":       memory,
	"poweroff":     func([]string) (string, error) { return "", reboot(unix.LINUX_REBOOT_CMD_POWER_OFF) },
	"reboot":       func([]string) (string, error) { return "", reboot(unix.LINUX_REBOOT_CMD_RESTART) },
	"crash":        crash,
	"pci":          pci,
	"nothing":      func([]string) (string, error) { return "", nil },
	"address":      address,
	"bench-disk":   diskBench,
	"bench-stream": streamBench,
}

func reboot(how int) error {
	unix.Sync()
	return unix.Reboot(how)
}

// crash makes the kernel panic; with panic=-1 it then triple-faults or resets.
func crash([]string) (string, error) {
	return "", os.WriteFile("/proc/sysrq-trigger", []byte("c"), 0)
}

// dhcp asks for an address on eth0 and sets it with its route.
func dhcp([]string) (string, error) {
	link, err := netlink.LinkByName("eth0")
	if err != nil {
		return "", err
	}
	if err := netlink.LinkSetUp(link); err != nil {
		return "", err
	}
	client, err := nclient4.New("eth0", nclient4.WithTimeout(2*time.Second), nclient4.WithRetry(5))
	if err != nil {
		return "", err
	}
	defer client.Close()
	ctx, cancel := context.WithTimeout(context.Background(), limit)
	defer cancel()
	hostname, _ := os.Hostname()
	lease, err := client.Request(ctx, dhcpv4.WithOption(dhcpv4.OptHostName(hostname)))
	if err != nil {
		return "", err
	}
	ack := lease.ACK
	addr := &netlink.Addr{IPNet: &net.IPNet{IP: ack.YourIPAddr, Mask: ack.SubnetMask()}}
	if err := netlink.AddrReplace(link, addr); err != nil {
		return "", err
	}
	if routers := ack.Router(); len(routers) > 0 {
		route := &netlink.Route{LinkIndex: link.Attrs().Index, Gw: routers[0]}
		if err := netlink.RouteReplace(route); err != nil {
			return "", err
		}
	}
	mtu, _ := dhcpv4.GetUint16(dhcpv4.OptionInterfaceMTU, ack.Options)
	return fmt.Sprintf("address=%s router=%v dns=%v mtu=%d", addr.IPNet, ack.Router(), ack.DNS(), mtu), nil
}

func get(args []string) (string, error) {
	client := http.Client{Timeout: limit}
	return fetch(&client, args[0], "")
}

// vsockGet reads a path of the host's API: vsock PATH TOKEN.
func vsockGet(args []string) (string, error) {
	client := http.Client{Timeout: limit, Transport: &http.Transport{
		DialContext: func(context.Context, string, string) (net.Conn, error) { return vsock.Dial(vsock.Host, 9400, nil) },
	}}
	return fetch(&client, "http://host"+args[0], args[1])
}

func fetch(client *http.Client, url, token string) (string, error) {
	req, err := http.NewRequest(http.MethodGet, url, nil)
	if err != nil {
		return "", err
	}
	if token != "" {
		req.Header.Set("Authorization", "Bearer "+token)
	}
	resp, err := client.Do(req)
	if err != nil {
		return "", err
	}
	defer resp.Body.Close()
	body, err := io.ReadAll(io.LimitReader(resp.Body, 1<<20))
	if err != nil {
		return "", err
	}
	return fmt.Sprintf("%d %s", resp.StatusCode, bytes.ReplaceAll(body, []byte("\n"), nil)), nil
}

// dial tells whether a TCP connection can be made: dial ADDR:PORT.
func dial(args []string) (string, error) {
	conn, err := net.DialTimeout("tcp", args[0], 3*time.Second)
	if err != nil {
		return "", err
	}
	return "connected", conn.Close()
}

// ping sends one echo request: ping ADDR.
func ping(args []string) (string, error) {
	addr, err := netip.ParseAddr(args[0])
	if err != nil {
		return "", err
	}
	conn, err := net.Dial("ip4:icmp", addr.String())
	if err != nil {
		return "", err
	}
	defer conn.Close()
	_ = conn.SetDeadline(time.Now().Add(3 * time.Second))
	echo := []byte{8, 0, 0, 0, 0x51, 0x56, 0, 1}
	binary.BigEndian.PutUint16(echo[2:], ^uint16(0x0800+0x5156+1))
	if _, err := conn.Write(echo); err != nil {
		return "", err
	}
	reply := make([]byte, 128)
	for {
		n, err := conn.Read(reply)
		if err != nil {
			return "", err
		}
		if n >= 20 && reply[0]>>4 == 4 { // the raw socket may show the IP header
			if h := int(reply[0]&15) * 4; h < n && reply[h] == 0 {
				return "alive", nil
			}
		}
		if n > 0 && reply[0] == 0 {
			return "alive", nil
		}
	}
}

// diskWrite fills the first MiB blocks of a disk with bytes that follow from a
// seed and flushes them: write DEVICE MIB SEED.
func diskWrite(args []string) (string, error) {
	f, err := os.OpenFile("/dev/"+args[0], os.O_WRONLY, 0)
	if err != nil {
		return "", err
	}
	defer f.Close()
	count, err := strconv.Atoi(args[1])
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	for i := range count {
		block := pattern(args[2], i)
		_, _ = sum.Write(block)
		if _, err := f.Write(block); err != nil {
			return "", err
		}
	}
	if err := f.Sync(); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

func pattern(seed string, block int) []byte {
	key := sha256.Sum256(fmt.Appendf(nil, "%s/%d", seed, block))
	return bytes.Repeat(key[:], 1<<20/len(key))
}

// diskSum hashes the first MiB blocks of a disk: sum DEVICE MIB.
func diskSum(args []string) (string, error) {
	f, err := os.Open("/dev/" + args[0])
	if err != nil {
		return "", err
	}
	defer f.Close()
	count, err := strconv.ParseInt(args[1], 10, 64)
	if err != nil {
		return "", err
	}
	sum := sha256.New()
	if _, err := io.CopyN(sum, f, count<<20); err != nil {
		return "", err
	}
	return hex.EncodeToString(sum.Sum(nil)), nil
}

// random reads from the virtio source of randomness.
func random([]string) (string, error) {
	f, err := os.Open("/dev/hwrng")
	if err != nil {
		return "", err
	}
	defer f.Close()
	buf := make([]byte, 32)
	if _, err := io.ReadFull(f, buf); err != nil {
		return "", err
	}
	return hex.EncodeToString(buf), nil
}

func memory([]string) (string, error) {
	var info unix.Sysinfo_t
	if err := unix.Sysinfo(&info); err != nil {
		return "", err
	}
	return strconv.FormatUint(info.Totalram*uint64(info.Unit), 10), nil
}

// pci lists vendor:device of every PCI function.
func pci([]string) (string, error) {
	dirs, err := filepath.Glob("/sys/bus/pci/devices/*")
	if err != nil {
		return "", err
	}
	var list []string
	for _, dir := range dirs {
		vendor, _ := os.ReadFile(dir + "/vendor")
		device, _ := os.ReadFile(dir + "/device")
		list = append(list, strings.TrimSpace(string(vendor))+":"+strings.TrimSpace(string(device)))
	}
	return strings.Join(list, " "), nil
}
