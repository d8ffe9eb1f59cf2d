package tap

import (
	"strings"

	"github.com/vishvananda/netlink"

	"quantavirt/netstack/mac"
)

// Owner is what a device is for. It stands in the link's alias, so that it
// lives exactly as long as the device.
type Owner struct {
	PortID   string
	Network  string   // id of the network
	MAC      mac.Addr // of the guest's side
	Hostname string   // may be empty
}

const aliasPrefix = "quantavirt port "

// String is the alias, e.g.
// "quantavirt port 1f…/9c… mac=52:54:00:12:34:56 host=web".
func (o Owner) String() string {
	s := aliasPrefix + o.Network + "/" + o.PortID + " mac=" + o.MAC.String()
	if o.Hostname != "" {
		s += " host=" + o.Hostname
	}
	return s
}

// OwnerOf reads the alias of a TAP device of ours.
func OwnerOf(l netlink.Link) (Owner, bool) {
	if l.Type() != "tuntap" && l.Type() != "tun" {
		return Owner{}, false
	}
	return parseAlias(l.Attrs().Alias)
}

func parseAlias(alias string) (Owner, bool) {
	rest, ok := strings.CutPrefix(alias, aliasPrefix)
	if !ok {
		return Owner{}, false
	}
	fields := strings.Fields(rest)
	if len(fields) < 2 {
		return Owner{}, false
	}
	var o Owner
	if o.Network, o.PortID, ok = strings.Cut(fields[0], "/"); !ok {
		return Owner{}, false
	}
	for _, f := range fields[1:] {
		key, value, _ := strings.Cut(f, "=")
		switch key {
		case "mac":
			a, err := mac.Parse(value)
			if err != nil {
				return Owner{}, false
			}
			o.MAC = a
		case "host":
			o.Hostname = value
		}
	}
	return o, !o.MAC.IsZero()
}
