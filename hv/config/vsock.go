package config

// Vsock is the virtio-vsock device: through the kernel's vhost-vsock, or on UNIX
// sockets where that is absent.
type Vsock struct {
	CID   uint32 `json:"cid"`             // 3 and up
	Vhost string `json:"vhost,omitempty"` // descriptor name of /dev/vhost-vsock
	// Sockets is the descriptor name of a listening UNIX socket, at which programs of
	// the host say "CONNECT PORT"; "" with Vhost.
	Sockets string `json:"sockets,omitempty"`
}

func (m *Machine) validateVsock() error {
	v := m.Vsock
	switch {
	case v == nil:
	case v.CID < MinCID || v.CID == 0xffffffff:
		return bad("vsock.cid", "context id %d is reserved", v.CID)
	case (v.Vhost == "") == (v.Sockets == ""):
		return bad("vsock.vhost", "one of vhost-vsock and a listening socket is needed")
	}
	return nil
}
