package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"errors"
	"slices"

	"github.com/google/go-tpm/tpm2"
	"github.com/google/go-tpm/tpm2/transport"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
)

// Sealed is a secret that one TPM gives back while its registers have certain
// values. It needs no protection itself.
type Sealed struct {
	PCRs    []int         `json:"pcrs"`
	Policy  digest.SHA256 `json:"policy"` // of the values
	Parent  []byte        `json:"parent"` // name of the storage key that it is below
	Public  []byte        `json:"public"`
	Private []byte        `json:"private"` // encrypted by the TPM
}

// MaxSecret is the largest secret, in bytes (part 2, MAX_SYM_DATA).
const MaxSecret = 128

// Policy is the policy of values: TPM2_PolicyPCR (part 3, section 23.7) in a
// fresh session.
func (v Values) Policy() digest.SHA256 {
	pcrs := v.pcrs()
	h := sha256.New()
	h.Write(make([]byte, len(digest.SHA256{})))
	h.Write(binary.BigEndian.AppendUint32(nil, uint32(tpm2.TPMCCPolicyPCR)))
	h.Write(tpm2.Marshal(selection(pcrs...)))
	sum := v.sum()
	h.Write(sum[:])
	return digest.SHA256(h.Sum(nil))
}

// sum is the digest of the values in the order of their registers.
func (v Values) sum() digest.SHA256 {
	h := sha256.New()
	for _, pcr := range v.pcrs() {
		d := v[pcr]
		h.Write(d[:])
	}
	return digest.SHA256(h.Sum(nil))
}

func (v Values) pcrs() []int {
	var pcrs []int
	for pcr := range v {
		pcrs = append(pcrs, pcr)
	}
	slices.Sort(pcrs)
	return pcrs
}

// Seal seals a secret to values, which need not be those of now.
func (d *Device) Seal(secret []byte, values Values) (Sealed, error) {
	if len(secret) == 0 || len(secret) > MaxSecret || len(values) == 0 {
		return Sealed{}, qverr.New(qverr.Inval, "seal %d bytes to %d registers: 1 to %d bytes and at least one register", len(secret), len(values), MaxSecret)
	}
	parent, err := d.storageKey()
	if err != nil {
		return Sealed{}, err
	}
	defer parent.flush()
	policy := values.Policy()
	got, err := tpm2.Create{
		ParentHandle: parent.authorised(),
		InSensitive: tpm2.TPM2BSensitiveCreate{Sensitive: &tpm2.TPMSSensitiveCreate{
			Data: tpm2.NewTPMUSensitiveCreate(&tpm2.TPM2BSensitiveData{Buffer: secret}),
		}},
		InPublic: tpm2.New2B(tpm2.TPMTPublic{
			Type: tpm2.TPMAlgKeyedHash, NameAlg: tpm2.TPMAlgSHA256,
			// Neither UserWithAuth, so that there is no way around the policy,
			// nor a limit of tries: there is nothing to be guessed.
			ObjectAttributes: tpm2.TPMAObject{FixedTPM: true, FixedParent: true, NoDA: true},
			AuthPolicy:       tpm2.TPM2BDigest{Buffer: policy[:]},
		}),
	}.Execute(d.tpm)
	if err != nil {
		return Sealed{}, failed("seal by the TPM", err)
	}
	return Sealed{PCRs: values.pcrs(), Policy: policy, Parent: parent.name.Buffer, Public: got.OutPublic.Bytes(), Private: got.OutPrivate.Buffer}, nil
}

// Unseal returns the secret. QV_ERR_PERM: the registers have other values, or it
// was sealed by another TPM.
func (d *Device) Unseal(s Sealed) ([]byte, error) {
	if err := s.check(); err != nil {
		return nil, err
	}
	parent, err := d.storageKey()
	if err != nil {
		return nil, err
	}
	defer parent.flush()
	if !bytes.Equal(parent.name.Buffer, s.Parent) {
		return nil, qverr.New(qverr.Perm, "the key was sealed by another TPM, or this one was cleared")
	}
	loaded, err := tpm2.Load{
		ParentHandle: parent.authorised(),
		InPrivate:    tpm2.TPM2BPrivate{Buffer: s.Private},
		InPublic:     tpm2.BytesAs2B[tpm2.TPMTPublic](s.Public),
	}.Execute(d.tpm)
	if err != nil {
		return nil, failed("load the sealed key into the TPM", err)
	}
	defer flush(d, loaded.ObjectHandle)
	session := tpm2.Policy(tpm2.TPMAlgSHA256, 16, func(t transport.TPM, session tpm2.TPMISHPolicy, _ tpm2.TPM2BNonce) error {
		_, err := tpm2.PolicyPCR{PolicySession: session, Pcrs: selection(s.PCRs...)}.Execute(t)
		return err
	}, tpm2.Salted(parent.handle, parent.public), tpm2.AESEncryption(128, tpm2.EncryptOut))
	got, err := tpm2.Unseal{ItemHandle: tpm2.AuthHandle{Handle: loaded.ObjectHandle, Name: loaded.Name, Auth: session}}.Execute(d.tpm)
	switch {
	case errors.Is(err, tpm2.TPMRCPolicyFail):
		return nil, qverr.New(qverr.Perm, "the TPM keeps the key: the boot was measured differently than it was sealed for")
	case err != nil:
		return nil, failed("unseal by the TPM", err)
	}
	return got.OutData.Buffer, nil
}

// check bounds what somebody may have put in the place of a Sealed.
func (s Sealed) check() error {
	if len(s.PCRs) == 0 || len(s.PCRs) > PCRs || len(s.Public) > 1<<10 || len(s.Private) > 1<<10 {
		return qverr.New(qverr.Inval, "not a sealed key: %d registers, parts of %d and %d bytes", len(s.PCRs), len(s.Public), len(s.Private))
	}
	for _, pcr := range s.PCRs {
		if pcr < 0 || pcr > maxPCR {
			return qverr.New(qverr.Inval, "not a sealed key: register %d", pcr)
		}
	}
	return nil
}

// key is a key in the TPM.
type key struct {
	handle tpm2.TPMHandle
	name   tpm2.TPM2BName
	public tpm2.TPMTPublic
	d      *Device
}

func (k key) flush() { flush(k.d, k.handle) }

// flush is best effort: the resource manager does it too when the device is
// closed.
func flush(d *Device, h tpm2.TPMHandle) { _, _ = tpm2.FlushContext{FlushHandle: h}.Execute(d.tpm) }

// authorised uses the key in a session that encrypts a command's first parameter,
// for the TPM alone: who listens on the bus reads nothing.
func (k key) authorised() tpm2.AuthHandle {
	return tpm2.AuthHandle{Handle: k.handle, Name: k.name, Auth: tpm2.HMAC(tpm2.TPMAlgSHA256, 16,
		tpm2.Salted(k.handle, k.public), tpm2.AESEncryption(128, tpm2.EncryptIn))}
}

// storageKey makes the TPM's storage root key: always the same one until the
// TPM is cleared (TCG TPM v2.0 Provisioning Guidance, section 7.5.1).
func (d *Device) storageKey() (key, error) {
	return d.primary(tpm2.TPMRHOwner, tpm2.ECCSRKTemplate, "make the TPM's storage key")
}

func (d *Device) primary(hierarchy tpm2.TPMHandle, template tpm2.TPMTPublic, what string) (key, error) {
	got, err := tpm2.CreatePrimary{PrimaryHandle: hierarchy, InPublic: tpm2.New2B(template)}.Execute(d.tpm)
	if err != nil {
		return key{}, failed(what, err)
	}
	public, err := got.OutPublic.Contents()
	if err != nil {
		flush(d, got.ObjectHandle)
		return key{}, failed(what, err)
	}
	return key{got.ObjectHandle, got.Name, *public, d}, nil
}
