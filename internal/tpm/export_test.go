package tpm

import "github.com/google/go-tpm/tpm2"

// RemoveCounter removes the counter; one that is made later begins above it.
func (d *Device) RemoveCounter(index uint32) error {
	handle := tpm2.TPMHandle(index)
	public, err := tpm2.NVReadPublic{NVIndex: handle}.Execute(d.tpm)
	if err != nil {
		return failed("find the TPM's counter", err)
	}
	_, err = tpm2.NVUndefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: handle, Name: public.NVName},
	}.Execute(d.tpm)
	if err != nil {
		return failed("remove the TPM's counter", err)
	}
	return nil
}
