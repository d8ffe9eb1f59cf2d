package main

import (
	"errors"
	"io/fs"
	"os"

	"quantavirt/hv/config"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
)

// addVsock adds the vsock device, on UNIX sockets where the kernel has none.
func addVsock(spec *vmm.Spec, cid uint32, user bool) error {
	v := &config.Vsock{CID: cid}
	spec.Machine.Vsock = v
	if !user {
		f, err := os.OpenFile("/dev/vhost-vsock", os.O_RDWR, 0)
		if err == nil {
			v.Vhost, spec.Files["vhost-vsock"] = "vhost-vsock", f
			return nil
		}
		if !errors.Is(err, fs.ErrNotExist) {
			return qverr.New(qverr.CodeOf(err), "vsock: %w", err)
		}
	}
	f, err := vmm.ListenVsock(spec.RunDir, spec.Name)
	if err != nil {
		return err
	}
	v.Sockets, spec.Files["vsock"] = "vsock", f
	return nil
}
