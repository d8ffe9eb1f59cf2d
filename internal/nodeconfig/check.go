package nodeconfig

import (
	"errors"
	"fmt"
	"net"
	"net/netip"
	"net/url"
	"regexp"
	"slices"
	"strings"
	"unicode"

	"quantavirt/internal/disks"
)

var (
	namePattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,64}$`)
	hexPattern  = regexp.MustCompile(`^[0-9a-f]{64}$`)
	sizePattern = regexp.MustCompile(`^[0-9]{1,16}[KMGT]?$`)
	linkPattern = regexp.MustCompile(`^[A-Za-z0-9._-]{1,15}$`)
)

// oneOf accepts some words.
func oneOf(words ...string) func(string) error {
	return func(s string) error {
		if !slices.Contains(words, s) {
			return fmt.Errorf("not one of %s", strings.Join(words, ", "))
		}
		return nil
	}
}

// name is that of a VM, a network, an image or a disk.
func name(s string) error {
	if !namePattern.MatchString(s) || s == "." || s == ".." {
		return errors.New("not 1 to 64 of letters, digits, '.', '_' and '-'")
	}
	return nil
}

// CheckHostname accepts one label of RFC 1123, section 2.1.
func CheckHostname(s string) error {
	bad := strings.ContainsFunc(s, func(r rune) bool {
		return r != '-' && (r < '0' || r > '9') && (r < 'a' || r > 'z') && (r < 'A' || r > 'Z')
	})
	if len(s) < 1 || len(s) > 63 || bad || strings.Trim(s, "-") != s {
		return errors.New("not a host name of letters, digits and '-' with at most 63 characters")
	}
	return nil
}

// server is a host name with dots, or an address.
func server(s string) error {
	if _, err := netip.ParseAddr(s); err == nil {
		return nil
	}
	if len(s) > 253 {
		return errors.New("longer than a host name")
	}
	for label := range strings.SplitSeq(s, ".") {
		if err := CheckHostname(label); err != nil {
			return errors.New("neither a host name nor an address")
		}
	}
	return nil
}

// bootFile is a name on a TFTP server or a URL: what fits into the field of BOOTP.
func bootFile(s string) error {
	if len(s) > 127 || strings.ContainsFunc(s, func(r rune) bool { return r <= ' ' || r > '~' }) {
		return errors.New("not at most 127 printable characters without spaces")
	}
	return nil
}

func tokenHash(s string) error {
	digits, ok := strings.CutPrefix(s, "sha256:")
	if !ok || !hexPattern.MatchString(digits) {
		return errors.New("not sha256: and 64 hex digits")
	}
	return nil
}

func sum(s string) error {
	if !hexPattern.MatchString(s) {
		return errors.New("not the 64 hex digits of a SHA-256")
	}
	return nil
}

func text(most int) func(string) error {
	return func(s string) error {
		if len(s) > most || strings.ContainsFunc(s, unicode.IsControl) {
			return fmt.Errorf("not a text of at most %d bytes", most)
		}
		return nil
	}
}

// CheckURL accepts an absolute HTTP or HTTPS URL.
func CheckURL(s string) error {
	u, err := url.Parse(s)
	if err != nil || (u.Scheme != "http" && u.Scheme != "https") || u.Host == "" || len(s) > 2048 {
		return errors.New("not an http:// or https:// URL")
	}
	return nil
}

func diskSize(s string) error {
	if !sizePattern.MatchString(s) {
		return errors.New("not a number, with K, M, G or T (powers of 1024) or without")
	}
	return nil
}

func selector(s string) error { return disks.CheckSelector(s) }

// link is an interface by its name or its MAC address.
func link(s string) error {
	if mac, err := net.ParseMAC(s); err == nil && len(mac) == 6 {
		return nil
	}
	if !linkPattern.MatchString(s) {
		return errors.New("neither the name nor the MAC address of an interface")
	}
	return nil
}

func address(s string) error {
	if a, err := netip.ParseAddr(s); err != nil || !a.Is4() || a.IsUnspecified() || a.IsMulticast() {
		return errors.New("not the IPv4 address of a host")
	}
	return nil
}

// prefix is the address of a host with the length of its subnet.
func prefix(s string) error {
	p, err := netip.ParsePrefix(s)
	if err != nil || !p.Addr().Is4() || p.Bits() < 1 || p.Addr().IsUnspecified() || p.Addr().IsMulticast() {
		return errors.New("not the IPv4 address of a host with the length of its subnet, as 10.0.0.7/24")
	}
	if p.Bits() < 31 && p.Addr() == p.Masked().Addr() {
		return errors.New("the address of the subnet itself, not of a host in it")
	}
	return nil
}
