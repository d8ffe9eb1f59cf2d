package rtnl

import (
	"bytes"
	"errors"
	"fmt"
	"io/fs"
	"os"
	"path/filepath"
)

// Sysctl writes a value below /proc/sys/net if another one stands there, e.g.
// ("ipv4/ip_forward", "1"). Some values have side effects even when they are
// written unchanged. Reports whether it wrote.
func Sysctl(path, value string) (bool, error) {
	name := filepath.Join("/proc/sys/net", path)
	old, err := os.ReadFile(name)
	if err != nil {
		return false, fmt.Errorf("read sysctl %s: %w", path, err)
	}
	if string(bytes.TrimSpace(old)) == value {
		return false, nil
	}
	if err := os.WriteFile(name, []byte(value), 0o644); err != nil {
		return false, fmt.Errorf("set sysctl %s to %s: %w", path, value, err)
	}
	return true, nil
}

// DisableIPv6 keeps the kernel from speaking IPv6 on a link by itself. A kernel
// without IPv6 is fine.
func DisableIPv6(link string) error {
	_, err := Sysctl("ipv6/conf/"+link+"/disable_ipv6", "1")
	if errors.Is(err, fs.ErrNotExist) {
		return nil
	}
	return err
}
