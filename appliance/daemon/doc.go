// Package daemon is the management daemon: it puts the services together,
// serves the API on TLS, vsock and the UNIX socket, and takes part in the
// node's life under PID 1.
//
// SIGTERM means that the node goes down: guests are asked to power off, the
// rest is ended, and the daemon exits. SIGHUP and SIGINT end the daemon and
// leave the VMs running; the next daemon finds them again.
package daemon
