// Package rescue serves a node whose daemon cannot start: PID 1 runs it in the
// daemon's place, as "quantavirt rescue".
//
// It is heard at the daemon's addresses and knows the same tokens and authority, but
// stands on nothing that may be what broke. The state file is only read, by a process
// of its own that may crash or hang; an authority or tokens that cannot be had are
// made anew in memory; the uplink is brought up by netstack/uplink alone. It serves
// what a node is repaired with: information, logs, a support bundle, update, rollback, reboot. VMs that
// run are left alone; guests get no DHCP answers while it serves.
//
// It ends with status 0 to make way for the daemon: when asked to, or after nobody has
// used it for the time that PID 1 says.
package rescue
