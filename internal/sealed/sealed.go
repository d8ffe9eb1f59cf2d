// Package sealed is the encrypted data volume: a LUKS2 volume that is opened by
// a key sealed to the boot's measurements in the TPM, or by the recovery key.
//
// What is sealed to are the registers of Registers: Secure Boot's state and keys,
// the unified kernel image with its command line, and whatever a boot loader may add to
// them. Without the last, a line added at the boot menu would get a shell in an open volume.
package sealed

import (
	"encoding/json"
	"errors"
	"fmt"
	"os"
	"strings"

	"quantavirt/internal/dm"
	"quantavirt/internal/luks2"
	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
)

// Label is that of the volume's header.
const Label = "QV-DATA"

// Names of the device mapper's devices.
const (
	NameData = "qv-data" // the mounted data volume
	NameNew  = "qv-new"  // one that is being made
)

// Key slots of the volume.
const (
	slotRecovery = 0
	slotTPM      = 1
)

// maxSeals bounds for how many boots a volume is sealed: the slots of a disk.
const maxSeals = 8

// tokenType is that of the LUKS2 token with the sealed key.
const tokenType = "quantavirt-tpm2"

type token struct {
	Type     string   `json:"type"`
	Keyslots []string `json:"keyslots"`
	Seals    Seals    `json:"seals"`
	// Unrecoverable says that nobody has been given a recovery key yet.
	Unrecoverable bool `json:"unrecoverable,omitempty"`
}

// Place is where a volume lies: a device, or a part of it.
type Place struct {
	Device       string
	Offset, Size int64 // bytes; Size 0: up to the end
}

// region is an open Place.
type region struct {
	*os.File
	Place
}

func (p Place) open(flag int) (region, error) {
	f, err := os.OpenFile(p.Device, flag, 0)
	if err != nil {
		return region{}, qverr.New(qverr.CodeOf(err), "open the encrypted volume: %w", err)
	}
	if p.Size == 0 {
		end, err := f.Seek(0, 2)
		if err != nil {
			return region{}, errors.Join(qverr.New(qverr.StrIO, "size of %s: %w", p.Device, err), f.Close())
		}
		p.Size = end - p.Offset
	}
	p.Size = p.Size / 4096 * 4096
	return region{f, p}, nil
}

func (r region) ReadAt(b []byte, off int64) (int, error)  { return r.File.ReadAt(b, r.Offset+off) }
func (r region) WriteAt(b []byte, off int64) (int, error) { return r.File.WriteAt(b, r.Offset+off) }

// Encrypt makes an encrypted volume and opens it as a device: a file system can
// be made on that. It is sealed for policies, at least one. Without a recovery key the
// TPM alone opens it, until SetRecovery gives it one. Close(NameNew) closes it.
func Encrypt(p Place, recoveryKey string, d *tpm.Device, policies ...Policy) (device string, err error) {
	recovery := newSecret() // that nobody gets to know
	if recoveryKey != "" {
		if recovery, err = ParseRecoveryKey(recoveryKey); err != nil {
			return "", err
		}
	}
	r, err := p.open(os.O_RDWR)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	v, key, err := r.format(recovery, recoveryKey == "", d, policies)
	if err != nil {
		return "", err
	}
	return r.mapped(v, key, NameNew)
}

// format makes the volume. The TPM comes first: what is there is lost only once
// it has done its part.
func (r region) format(recovery []byte, unrecoverable bool, d *tpm.Device, policies []Policy) (*luks2.Volume, []byte, error) {
	secret := newSecret()
	seals, err := SealFor(d, secret, policies)
	if err != nil {
		return nil, nil, err
	}
	v, key, err := luks2.Format(r, r.Size, Label, recovery, secret)
	if err != nil {
		return nil, nil, err
	}
	if err := v.SetToken(token{tokenType, []string{fmt.Sprint(slotTPM)}, seals, unrecoverable}); err != nil {
		return nil, nil, err
	}
	return v, key, v.Write(r)
}

// Close closes a device that Encrypt, Open or Recover made.
func Close(name string) error { return dm.Close(name) }

// mapped makes the device of the volume's data.
func (r region) mapped(v *luks2.Volume, key []byte, name string) (string, error) {
	s := v.Segment()
	c := dm.Crypt{
		Device: r.Device, Offset: r.Offset + s.Offset, Size: (r.Size - s.Offset) / int64(s.SectorSize) * int64(s.SectorSize),
		Cipher: s.Cipher, Key: key, SectorSize: s.SectorSize,
	}
	return c.Open(name, "CRYPT-LUKS2-"+strings.ReplaceAll(v.UUID, "-", "")+"-"+name) // as cryptsetup names it
}

// Open opens the data volume by the TPM. QV_ERR_PERM: this boot is not one of
// those that the volume is sealed for; the text says what differs.
func Open(p Place, d *tpm.Device) (device string, err error) {
	r, err := p.open(os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	v, key, err := r.unseal(d)
	if err != nil {
		return "", err
	}
	return r.mapped(v, key, NameData)
}

// unseal returns the volume's key by the TPM.
func (r region) unseal(d *tpm.Device) (*luks2.Volume, []byte, error) {
	v, t, err := r.read()
	if err != nil {
		return nil, nil, err
	}
	secret, err := t.unseal(d)
	if err != nil {
		return nil, nil, err
	}
	key, err := v.Open(r, secret)
	return v, key, err
}

// Recover opens the data volume by the recovery key. QV_ERR_PERM: it is another.
func Recover(p Place, recoveryKey string) (device string, err error) {
	recovery, err := ParseRecoveryKey(recoveryKey)
	if err != nil {
		return "", err
	}
	r, err := p.open(os.O_RDONLY)
	if err != nil {
		return "", err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	v, err := luks2.Read(r)
	if err != nil {
		return "", err
	}
	key, err := v.Open(r, recovery)
	if err != nil {
		return "", err
	}
	return r.mapped(v, key, NameData)
}

// Reseal seals the volume for other boots, in place of those before. Without a
// recovery key this boot must be one of those.
func Reseal(p Place, recoveryKey string, d *tpm.Device, policies ...Policy) (err error) {
	r, err := p.open(os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	v, t, err := r.read()
	if err != nil {
		return err
	}
	var secret []byte
	if recoveryKey == "" {
		secret, err = t.unseal(d)
	} else {
		secret, err = r.newSecret(v, recoveryKey)
	}
	if err != nil {
		return err
	}
	if t.Seals, err = SealFor(d, secret, policies); err != nil {
		return err
	}
	if err := v.SetToken(t); err != nil {
		return err
	}
	return v.Write(r)
}

// newSecret puts a new secret in the place of the TPM's.
func (r region) newSecret(v *luks2.Volume, recoveryKey string) ([]byte, error) {
	recovery, err := ParseRecoveryKey(recoveryKey)
	if err != nil {
		return nil, err
	}
	key, err := v.Open(r, recovery)
	if err != nil {
		return nil, err
	}
	secret := newSecret()
	return secret, v.SetKey(r, slotTPM, secret, key)
}

// SetRecovery has another recovery key open the volume from now on, and no longer the
// one before. QV_ERR_PERM: this boot is not one of those that the volume is sealed for.
func SetRecovery(p Place, recoveryKey string, d *tpm.Device) (err error) {
	recovery, err := ParseRecoveryKey(recoveryKey)
	if err != nil {
		return err
	}
	r, err := p.open(os.O_RDWR)
	if err != nil {
		return err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	v, t, err := r.read()
	if err != nil {
		return err
	}
	secret, err := t.unseal(d)
	if err != nil {
		return err
	}
	key, err := v.Open(r, secret)
	if err != nil {
		return err
	}
	if err := v.SetKey(r, slotRecovery, recovery, key); err != nil {
		return err
	}
	t.Unrecoverable = false
	if err := v.SetToken(t); err != nil {
		return err
	}
	return v.Write(r)
}

// Info is how a volume can be opened.
type Info struct {
	Sealed      []Policy // boots in which the TPM opens it
	Recoverable bool     // somebody was given a recovery key
}

// Inspect reads it off the volume.
func Inspect(p Place) (i Info, err error) {
	r, err := p.open(os.O_RDONLY)
	if err != nil {
		return i, err
	}
	defer func() { err = errors.Join(err, r.Close()) }()
	_, t, err := r.read()
	if err != nil {
		return i, err
	}
	i.Recoverable = !t.Unrecoverable
	i.Sealed = t.Seals.Policies()
	return i, nil
}

func (r region) read() (*luks2.Volume, token, error) {
	var t token
	v, err := luks2.Read(r)
	if err != nil {
		return nil, t, err
	}
	raw, ok := v.Token(tokenType)
	if !ok {
		return nil, t, qverr.New(qverr.NoEnt, "the encrypted volume has no key sealed to a TPM")
	}
	if err := json.Unmarshal(raw, &t); err != nil || len(t.Seals) > maxSeals {
		return nil, t, qverr.New(qverr.StrFormat, "the sealed key of the encrypted volume cannot be read: %w", err)
	}
	return v, t, nil
}

// unseal has the TPM give back the key that it sealed for this boot.
func (t token) unseal(d *tpm.Device) ([]byte, error) {
	secret, err := t.Seals.Unseal(d)
	if errors.Is(err, errOtherBoot) {
		e := qverr.New(qverr.Perm, "the volume is %w", err)
		return nil, e.WithHint("if that is as it should be: quantavirt system unlock, with the recovery key, then quantavirt system reseal")
	}
	return secret, err
}
