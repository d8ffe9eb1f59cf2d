package qverr

import "syscall"

var networkRows = []Entry{
	{Code: NetCreate, Name: "QV_NET_ERR_CREATE", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EADDRINUSE,
		Summary: "The network could not be created",
		Causes: []string{
			"Its addresses collide with another network",
			"The kernel refused the bridge or a TAP device",
		},
		Recovery: []string{
			"Check for overlapping subnets: quantavirt network list",
			"Check the permission to create bridges and TAP devices",
		}},
	{Code: NetBridge, Name: "QV_NET_ERR_BRIDGE", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENETDOWN,
		Summary: "The bridge of a network failed",
		Causes: []string{
			"The bridge was removed or is down",
			"The kernel refused a change of the bridge",
		},
		Recovery: []string{
			"Check that the bridge exists: ip link show BRIDGE",
			"Check the permission to change it",
		}},
	{Code: NetTAP, Name: "QV_NET_ERR_TAP", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENXIO,
		Summary: "A TAP device could not be created",
		Causes: []string{
			"/dev/net/tun is missing or not accessible",
			"The tun module is not loaded",
		},
		Recovery: []string{
			"Check the permissions of /dev/net/tun",
			"Load the module: modprobe tun",
		}},
	{Code: NetVhost, Name: "QV_NET_ERR_VHOST", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ENXIO,
		Summary: "vhost-net could not be activated",
		Causes: []string{
			"The vhost_net module is not loaded",
			"/dev/vhost-net is missing or not accessible",
		},
		Recovery: []string{
			"Load the module: modprobe vhost_net",
			"Check the permissions of /dev/vhost-net",
		}},
	{Code: NetVhostUser, Name: "QV_NET_ERR_VHOST_USER", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.ECONNREFUSED,
		Summary: "The vhost-user socket cannot be connected",
		Causes: []string{
			"The DPDK application is not running",
			"The path of the socket is wrong or not accessible",
		},
		Recovery: []string{
			"Check that the DPDK application runs",
			"Check path and permissions of the socket",
		}},
	{Code: NetDHCP, Name: "QV_NET_ERR_DHCP", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EADDRINUSE,
		Summary: "The DHCP server of a network could not be started",
		Causes: []string{
			"Another server holds UDP port 67 on the bridge",
			"The subnet leaves no address to hand out",
		},
		Recovery: []string{
			"Check for a conflict on the DHCP port",
			"Check the subnet of the network: quantavirt network show NAME",
		}},
	{Code: NetNAT, Name: "QV_NET_ERR_NAT", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EIO,
		Summary: "Address translation (NAT, masquerade) could not be set up",
		Causes: []string{
			"nftables or its NAT module is not available",
			"IP forwarding is off",
		},
		Recovery: []string{
			"Check the rules: nft list ruleset (or iptables -t nat -L)",
			"Check that IP forwarding is on: sysctl net.ipv4.ip_forward",
		}},
	{Code: NetMAC, Name: "QV_NET_ERR_MAC", Severity: SevError, HTTPStatus: 400, ExitCode: 1, Errno: syscall.EINVAL,
		Summary: "The MAC address is not valid or already in use",
		Causes: []string{
			"The address is malformed, multicast or all zero",
			"Another interface has the same address",
		},
		Recovery: []string{
			"Use a valid unicast MAC address, for example 52:54:00:12:34:56",
			"Leave mac out: QuantaVirt makes one",
		}},
	{Code: NetMTU, Name: "QV_NET_ERR_MTU", Severity: SevError, HTTPStatus: 400, ExitCode: 1, Errno: syscall.EINVAL,
		Summary: "The MTU could not be set",
		Causes: []string{
			"The host's adapter does not support the size",
			"The path does not carry jumbo frames",
		},
		Recovery: []string{
			"Check which MTU the host's adapter supports: ip -d link show",
			"Check the support for jumbo frames on the way",
		}},
	{Code: NetPQCTunnel, Name: "QV_NET_ERR_PQC_TUNNEL", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EPROTO,
		Summary: "The post-quantum tunnel could not be established",
		Causes: []string{
			"The PQC subsystem of one side does not work",
			"The other end does not speak the protocol",
		},
		Recovery: []string{
			"Check the PQC subsystem: quantavirt crypto quac100 status",
			"Check that the remote end supports PQC tunnels",
		}},
	{Code: NetFirewall, Name: "QV_NET_ERR_FIREWALL", Severity: SevError, HTTPStatus: 500, ExitCode: 1, Errno: syscall.EINVAL,
		Summary: "A firewall rule could not be applied",
		Causes: []string{
			"The rule is not valid for nftables",
			"Rules contradict each other",
		},
		Recovery: []string{
			"Check the syntax of the rule: nft list ruleset (or iptables -S)",
			"Look for conflicting rules",
		}},
}
