package keystore

import (
	"errors"

	"quantavirt/internal/qverr"
	"quantavirt/internal/secret"
)

// sealer is the one of a name, nil if it is not there.
func (s *Store) sealer(name string) Sealer {
	for _, by := range append([]Sealer{s.Sealer}, s.Others...) {
		if by != nil && by.Name() == name {
			return by
		}
	}
	return nil
}

func unseal(by Sealer, f file) (master *secret.Buffer, err error) {
	if master, err = secret.New(masterSize); err != nil {
		return nil, err
	}
	secret.Do(func() {
		var raw []byte
		if raw, err = by.Unseal(f.Sealed.Data); err != nil {
			return
		}
		defer clear(raw)
		if len(raw) != masterSize {
			err = refused("the master key has %d bytes", len(raw))
			return
		}
		copy(master.Bytes(), raw)
	})
	if err != nil {
		master.Wipe()
		return nil, err
	}
	return master, nil
}

// seals closes the master key up by passphrase and hardware.
func seals(h *header, master, text []byte, by Sealer) (err error) {
	if len(text) > 0 {
		if h.Passphrase, err = wrap(master, text); err != nil {
			return err
		}
	}
	h.Sealed = nil
	if by == nil {
		return nil
	}
	data, err := by.Seal(master)
	if err != nil {
		return qverr.New(qverr.CodeOf(err), "seal the keystore's master key: %w", err)
	}
	h.Sealed = &sealedKey{by.Name(), data}
	return nil
}

// again closes the master key up by the hardware that is there now: of the kind that had
// it, or else of what Options prefer. A card that is not there leaves the passphrase.
func (s *Store) again(h *header, master []byte) error {
	by := s.Sealer
	if h.Sealed != nil {
		if same := s.sealer(h.Sealed.By); same != nil {
			by = same
		}
	}
	err := seals(h, master, nil, by)
	if by != nil && by.Name() == ByCard && errors.Is(err, qverr.QUACNotFound) {
		s.Log.Warn("no card keeps the keystore's master key, only its passphrase opens it", "err", err)
		return nil
	}
	return err
}

// Reseal seals the master key anew by the TPM, before the boot changes. again gets what is in
// place. It does nothing if the TPM does not keep the key.
func (s *Store) Reseal(again func(master []byte, before []byte) ([]byte, error)) error {
	s.mu.RLock()
	idle := s.condition == Absent || s.condition == Open && (s.header.Sealed == nil || s.header.Sealed.By != ByTPM)
	s.mu.RUnlock()
	if idle {
		return nil
	}
	return s.change(func() error {
		data, err := again(s.master.Bytes(), s.header.Sealed.Data)
		if err == nil {
			s.header.Sealed = &sealedKey{s.header.Sealed.By, data}
		}
		return err
	})
}
