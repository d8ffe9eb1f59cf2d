package trust

import (
	"context"
	"errors"
	"fmt"
	"io"
	"os"
	"path/filepath"
	"strings"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/authenticode"
	"quantavirt/internal/digest"
	"quantavirt/internal/efivar"
	"quantavirt/internal/initapi"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/slot"
	"quantavirt/internal/tpm"
	"quantavirt/internal/ukifile"
	"quantavirt/pqc/attest"
)

// registers are those that a boot is measured into.
var registers = []int{0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14, 15}

// Info says what the node booted, and what is missing for it to be proven.
func (s *Service) Info(ctx context.Context) spec.Trust {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.trust != nil {
		return s.withVolume(*s.trust)
	}
	boot := s.Boot()
	t := spec.Trust{Identity: attest.Fingerprint(s.identity.Public()), Problems: []spec.Problem{}}
	add := func(err error) {
		if err != nil {
			t.Problems = append(t.Problems, *initapi.NewProblem(err))
		}
	}
	var err error
	t.SecureBoot, err = s.secureBoot()
	add(err)
	err = s.measured(boot, &t)
	add(err)
	if boot.Medium != "" && lasting(err) { // PID 1 knows by now
		s.trust = &t
	}
	return s.withVolume(t)
}

// lasting tells whether what was found holds for the whole boot: not so if
// something could not be read.
func lasting(err error) bool {
	switch qverr.CodeOf(err) {
	case qverr.NoDev, qverr.State, qverr.PQCAttestation:
		return true
	}
	return err == nil
}

// withVolume adds what the data volume is sealed for, which changes.
func (s *Service) withVolume(t spec.Trust) spec.Trust {
	data := s.Boot().Data
	if !data.Encrypted {
		return t
	}
	i, err := sealed.Inspect(sealed.Place{Device: data.Device})
	for _, p := range i.Sealed {
		t.SealedFor = append(t.SealedFor, p.For)
	}
	if err == nil && !i.Recoverable && !data.Locked {
		err = qverr.New(qverr.State, "the encrypted data volume has no recovery key: if the TPM does not open it one day, nothing does").
			WithHint("have one made: quantavirt system recovery-key")
	}
	if err != nil {
		t.Problems = append(t.Problems[:len(t.Problems):len(t.Problems)], *initapi.NewProblem(err))
	}
	return t
}

// secureBoot is the firmware's state (UEFI specification 2.10, section 32.3).
func (s *Service) secureBoot() (spec.TrustSecureBoot, error) {
	if _, err := os.Stat(s.EFI); err != nil {
		return spec.TrustSecureBootAbsent, qverr.New(qverr.Unsupported, "the node was not booted by UEFI: there is no Secure Boot").
			WithHint("boot by UEFI, if the machine has it")
	}
	on, err := s.flag("SecureBoot")
	if err != nil {
		return spec.TrustSecureBootAbsent, err
	}
	if on {
		return spec.TrustSecureBootOn, nil
	}
	state := spec.TrustSecureBootOff
	if setup, err := s.flag("SetupMode"); err == nil && setup {
		state = spec.TrustSecureBootSetup
	}
	return state, qverr.New(qverr.State, "Secure Boot is %s: the firmware starts whatever lies on the disk", state).
		WithHint("enrol the keys of the image's builder and switch it on: docs/secure-boot.md")
}

// Starts says why the firmware would not start a system: Secure Boot is on, and nobody
// whom it trusts has signed it. QV_ERR_PERM.
func (s *Service) Starts(uki io.ReaderAt, size int64) error {
	if on, err := s.flag("SecureBoot"); err != nil || !on {
		return nil // also where nobody knows: the firmware decides
	}
	_, value, err := efivar.Files{Dir: filepath.Join(s.EFI, "efivars"), Vendor: authenticode.Database}.Get("db")
	if err != nil {
		s.Log.Warn("what the firmware starts", "err", err)
		return nil
	}
	db, err := authenticode.ParseDB(value)
	if err != nil {
		s.Log.Warn("what the firmware starts", "err", err)
		return nil
	}
	return db.Check(uki, size)
}

// flag is a variable of one byte.
func (s *Service) flag(name string) (bool, error) {
	_, value, err := efivar.Files{Dir: filepath.Join(s.EFI, "efivars"), Vendor: efivar.Global}.Get(name)
	switch {
	case qverr.CodeOf(err) == qverr.NoEnt:
		return false, qverr.New(qverr.Unsupported, "the firmware does not know Secure Boot")
	case err != nil:
		return false, err
	case len(value) != 1:
		return false, qverr.New(qverr.IO, "firmware variable %s has %d bytes", name, len(value))
	}
	return value[0] == 1, nil
}

// measured compares registers, event log and the system's file.
func (s *Service) measured(boot initapi.Boot, t *spec.Trust) error {
	var values tpm.Values
	err := s.With(func(d *tpm.Device) (err error) {
		t.Tpm = true
		if t.TpmMaker, err = d.Maker(); err != nil {
			return err
		}
		values, err = d.Read(registers...)
		return err
	})
	if err != nil {
		return err
	}
	t.Pcr11 = values[ukifile.PCR].String()
	return errors.Join(s.compareSystem(boot, values, t), s.compareLog(values, t))
}

// compareSystem holds PCR 11 against the file that the node booted from, if it
// knows that file.
func (s *Service) compareSystem(boot initapi.Boot, values tpm.Values, t *spec.Trust) error {
	if values[ukifile.PCR] == (digest.SHA256{}) {
		return qverr.New(qverr.State, "PCR 11 is empty: the boot was not measured").
			WithHint("boot the unified kernel image by UEFI: its stub measures it")
	}
	m, err := s.running(boot)
	if qverr.CodeOf(err) == qverr.NoEnt {
		t.Message = "the node does not know the file that it booted from, so PCR 11 cannot be compared with it: compare it with the build's pcr11.json"
		return nil
	}
	if err != nil {
		return err
	}
	t.Pcr11Expected = m.Value.String()
	if m.Value.String() != t.Pcr11 {
		return qverr.New(qverr.PQCAttestation, "PCR 11 is %s, but the file of slot %s gives %s: something else was booted, or the file was changed since", t.Pcr11, boot.Slot, m.Value).
			WithHint("quantavirt system measurements shows what was measured")
	}
	return nil
}

func (s *Service) compareLog(values tpm.Values, t *spec.Trust) error {
	log, err := tpm.ReadLog(s.EventLog)
	if err != nil {
		return err
	}
	events, err := tpm.ParseLog(log)
	if err != nil {
		return err
	}
	t.Events = len(events)
	t.PcrsDiffer = values.Differ(tpm.Replay(events))
	t.LogMatches = len(t.PcrsDiffer) == 0
	if t.LogMatches {
		return nil
	}
	return qverr.New(qverr.PQCAttestation, "the events of the firmware's log do not lead to the values of PCR %s", strings.Trim(fmt.Sprint(t.PcrsDiffer), "[]"))
}

// running measures the file that the node booted from. QV_ERR_NOENT: it does not
// know it.
func (s *Service) running(boot initapi.Boot) (m ukifile.Measurement, err error) {
	if boot.ESPDevice == "" || boot.Slot == "" {
		return m, qverr.New(qverr.NoEnt, "the node was not booted from a slot")
	}
	err = s.eachSystem(boot.ESPDevice, func(name slot.Name, measured ukifile.Measurement) {
		if slot.Digits(name.Sequence) == boot.Slot {
			m = measured
		}
	})
	if err == nil && m.PCR == 0 {
		err = qverr.New(qverr.NoEnt, "the file of slot %s is not there", boot.Slot)
	}
	return m, err
}

// eachSystem measures the files of all slots.
func (s *Service) eachSystem(device string, fn func(slot.Name, ukifile.Measurement)) error {
	return s.Mount(device, func(dir string) error {
		folder := filepath.Join(dir, filepath.FromSlash(slot.UKIFolder))
		entries, err := os.ReadDir(folder)
		if err != nil {
			return qverr.New(qverr.CodeOf(err), "systems of the boot medium: %w", err)
		}
		for _, e := range entries {
			name, ok := slot.ParseName(e.Name())
			if !ok {
				continue
			}
			m, err := ukifile.MeasureFile(filepath.Join(folder, e.Name()))
			if err != nil {
				return err
			}
			fn(name, m)
		}
		return nil
	})
}
