#!/bin/sh
# init of the demonstration guest: an address from the host's DHCP server, a
# page through its NAT, its API over vsock; then it powers off or, with
# demo.stay on the kernel command line, gives a shell.
export PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=linux
mount -t proc proc /proc
mount -t sysfs sys /sys
mountpoint -q /dev || mount -t devtmpfs dev /dev
mount -t tmpfs run /run
mount -o remount,rw /
hostname demo
option() { tr ' ' '\n' </proc/cmdline | sed -n "s/^$1=//p"; }
say() { echo "demo: $*"; }

say "Debian $(cat /etc/debian_version), Linux $(uname -r), up $(cut -d' ' -f1 /proc/uptime) s"
modprobe -a virtio_net vmw_vsock_virtio_transport 2>/dev/null
ip link set lo up
if dhcpcd -4 -q -1 -t 30 eth0; then
	say "address $(ip -4 -br addr show eth0 | tr -s ' ' | cut -d' ' -f3) router $(ip route show default | cut -d' ' -f3)"
else
	say "FAILED: no address"
fi
say "page: $(curl -sS -m 30 "$(option demo.url)" 2>&1)"
say "host: $(quantavirt --host vsock://2 --token "$(option demo.token)" system info -o json 2>&1 | tr -d '\n' | tr -s ' ')"
if grep -q demo.stay /proc/cmdline; then
	say "a shell for you; leave the console with Ctrl-]"
	setsid -c bash -l </dev/hvc0 >/dev/hvc0 2>&1
fi
say "powering off"
sync
mount -o remount,ro /
busybox poweroff -f
