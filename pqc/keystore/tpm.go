package keystore

import (
	"encoding/json"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/tpm"
)

// TPM keeps the master key and counts along, by the machine's TPM. With calls what it
// is given with the open TPM. QV_ERR_NODEV: the machine has none.
type TPM struct {
	With func(use func(*tpm.Device) error) error
}

// Name is "tpm".
func (TPM) Name() string { return ByTPM }

// Usable says why this boot cannot be sealed for. QV_ERR_NODEV: the machine has no TPM;
// QV_ERR_STATE: the boot was not measured.
func (t TPM) Usable() error {
	return t.With(func(d *tpm.Device) error {
		_, err := sealed.Current(d)
		return err
	})
}

// Seal seals the master key for this boot.
func (t TPM) Seal(master []byte) (data json.RawMessage, err error) {
	err = t.With(func(d *tpm.Device) error {
		now, err := sealed.Current(d)
		if err != nil {
			return err
		}
		data, err = sealFor(d, master, now)
		return err
	})
	return data, err
}

// SealAlso seals the master key for one more boot: of another system, that measures
// pcr11. What it was sealed for stays, as far as there is room.
func (t TPM) SealAlso(master []byte, before json.RawMessage, pcr11 digest.SHA256, name string) (data json.RawMessage, err error) {
	seals, err := parseSeals(before)
	if err != nil {
		return nil, err
	}
	err = t.With(func(d *tpm.Device) error {
		now, err := sealed.Current(d)
		if err != nil {
			return err
		}
		data, err = sealFor(d, master, append([]sealed.Policy{now.Predict(pcr11, name), now}, seals.Policies()...)...)
		return err
	})
	return data, err
}

func sealFor(d *tpm.Device, master []byte, policies ...sealed.Policy) (json.RawMessage, error) {
	seals, err := sealed.SealFor(d, master, sealed.Distinct(policies))
	if err != nil {
		return nil, err
	}
	data, err := json.Marshal(seals)
	if err != nil {
		return nil, qverr.New(qverr.Generic, "encode what the TPM sealed: %w", err)
	}
	return data, nil
}

func parseSeals(data json.RawMessage) (seals sealed.Seals, err error) {
	if err := json.Unmarshal(data, &seals); err != nil {
		return nil, refused("the keystore's file is damaged: its sealed key: %w", err)
	}
	return seals, nil
}

// Unseal returns the master key.
func (t TPM) Unseal(data json.RawMessage) (master []byte, err error) {
	seals, err := parseSeals(data)
	if err != nil {
		return nil, err
	}
	err = t.With(func(d *tpm.Device) error {
		master, err = seals.Unseal(d)
		return err
	})
	return master, err
}

// Value is the count of the TPM's counter.
func (t TPM) Value() (n uint64, err error) {
	err = t.With(func(d *tpm.Device) error {
		n, err = d.Counter(tpm.CounterIndex)
		return err
	})
	return n, err
}

// Count counts up by the TPM's counter.
func (t TPM) Count() (n uint64, err error) {
	err = t.With(func(d *tpm.Device) error {
		n, err = d.Count(tpm.CounterIndex)
		return err
	})
	return n, err
}
