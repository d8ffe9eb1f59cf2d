package tpm

import (
	"encoding/binary"
	"errors"

	"github.com/google/go-tpm/tpm2"

	"quantavirt/internal/qverr"
)

// CounterIndex is where the keystore's counter is: in the range of the owner's
// indices (TCG Registry of Reserved TPM 2.0 Handles, section 2.2).
const CounterIndex = 0x01805156

// Counter reads a counter in the TPM's non-volatile memory, which can only go up:
// when it is removed and made again, it begins above all counters that there were (part 1,
// section 37.2.4). QV_ERR_NOENT: there is none.
func (d *Device) Counter(index uint32) (uint64, error) {
	handle := tpm2.TPMHandle(index)
	public, err := tpm2.NVReadPublic{NVIndex: handle}.Execute(d.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		return 0, qverr.New(qverr.NoEnt, "the TPM has no counter at %#x", index)
	}
	if err != nil {
		return 0, failed("find the TPM's counter", err)
	}
	got, err := tpm2.NVRead{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: handle, Name: public.NVName},
		Size:       8,
	}.Execute(d.tpm)
	if errors.Is(err, tpm2.TPMRCNVUninitialized) { // defined, and never counted
		return 0, qverr.New(qverr.NoEnt, "the TPM's counter at %#x was never counted", index)
	}
	if err != nil {
		return 0, failed("read the TPM's counter", err)
	}
	if len(got.Data.Buffer) != 8 {
		return 0, qverr.New(qverr.IO, "the TPM's counter has %d bytes", len(got.Data.Buffer))
	}
	return binary.BigEndian.Uint64(got.Data.Buffer), nil
}

// Count counts up by one, and returns what the counter is then. It makes the counter
// if there is none. The TPM's memory bears some hundred thousand of that.
func (d *Device) Count(index uint32) (uint64, error) {
	handle := tpm2.TPMHandle(index)
	public, err := tpm2.NVReadPublic{NVIndex: handle}.Execute(d.tpm)
	if errors.Is(err, tpm2.TPMRCHandle) {
		if err := d.defineCounter(handle); err != nil {
			return 0, err
		}
		public, err = tpm2.NVReadPublic{NVIndex: handle}.Execute(d.tpm)
	}
	if err != nil {
		return 0, failed("find the TPM's counter", err)
	}
	_, err = tpm2.NVIncrement{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		NVIndex:    tpm2.NamedHandle{Handle: handle, Name: public.NVName},
	}.Execute(d.tpm)
	if err != nil {
		return 0, failed("count by the TPM", err)
	}
	return d.Counter(index)
}

func (d *Device) defineCounter(handle tpm2.TPMHandle) error {
	_, err := tpm2.NVDefineSpace{
		AuthHandle: tpm2.AuthHandle{Handle: tpm2.TPMRHOwner, Auth: tpm2.PasswordAuth(nil)},
		PublicInfo: tpm2.New2B(tpm2.TPMSNVPublic{
			NVIndex: handle, NameAlg: tpm2.TPMAlgSHA256, DataSize: 8,
			Attributes: tpm2.TPMANV{NT: tpm2.TPMNTCounter, OwnerWrite: true, OwnerRead: true, NoDA: true},
		}),
	}.Execute(d.tpm)
	if err != nil {
		return failed("make a counter in the TPM", err)
	}
	return nil
}
