// Package vmm is the boundary between the management daemon and the process
// that runs one VM.
//
// The daemon's side is here: Spawn clones `hv vm/NAME` into its cgroup and
// namespaces and hands it everything it may use over a socketpair; Client drives
// it through its control socket; Adopt finds it again after a restart of the
// daemon. What runs inside the VM process is in hv/vmm/process, and shares the
// types of this package.
//
// # Start
//
// Spawn makes RunDir/vm/NAME with control.sock (listening) and exit.json, clones
// the process, and sends one JSON frame over descriptor 3 together with the
// descriptors that it names (SCM_RIGHTS). The process locks itself in, builds
// the machine, starts the vCPUs and answers the frame with success or an error
// of the catalogue. Spawn returns then. A VM never depends on its daemon again:
// the daemon may end, and the next one calls Adopt.
//
// # Control
//
// control.sock speaks HTTP/1.1 with JSON, so that curl can drive it:
//
//	GET  /info                     Info
//	GET  /stats                    Stats
//	GET  /wait?since=STATE         Info, once the state is no longer STATE (at most 60 s)
//	POST /pause /resume /reset     200 and Info
//	POST /power-button             202: the guest was asked, its end shows in the state
//	POST /quit                     202: the process ends with status 10
//	PUT  /disks/ID /nics/ID        DiskSetting, NICSetting: limits, for waiting requests too
//	PUT  /balloon                  BalloonSetting
//	GET  /console/NAME             what the ring keeps, as bytes
//	GET  /console/NAME + Upgrade: quantavirt-console
//	                               101, then the ring's content, then live in both directions
//
// NAME is "serial" or "virtio-console". An error answers with the HTTP status of
// its code and {"error":{"code":…,"name":…,"message":…}}. Which action is legal in
// which state is the table in state.go.
//
// # End
//
// The exit status says why the process ended (ExitGuestOff and the others);
// exit.json holds the same with a message. A process that was killed leaves an
// empty exit.json: Process.Wait reports the signal.
package vmm
