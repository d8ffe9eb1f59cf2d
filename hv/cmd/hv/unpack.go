package main

import (
	"errors"
	"os"

	"quantavirt/hv/machine"
	"quantavirt/internal/qverr"
)

// unpack stores the kernel at from unpacked at to, which must not be there yet.
func unpack(from, to string) (err error) {
	kernel, err := os.Open(from)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer kernel.Close()
	out, err := os.OpenFile(to, os.O_RDWR|os.O_CREATE|os.O_EXCL, 0o644)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() {
		err = errors.Join(err, out.Close())
		if err != nil {
			err = errors.Join(err, os.Remove(to))
		}
	}()
	if err := machine.Unpack(kernel, out); err != nil {
		return err
	}
	size, err := machine.UnpackedSize(kernel)
	if err != nil {
		return err
	}
	return machine.CheckUnpacked(out, size)
}
