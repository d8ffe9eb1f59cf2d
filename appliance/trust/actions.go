package trust

import (
	"context"
	"errors"
	"io"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/slot"
	"quantavirt/internal/tpm"
	"quantavirt/internal/ukifile"
	"quantavirt/pqc/attest"
)

// Measurements lists the registers and the events of this boot.
func (s *Service) Measurements(context.Context) (spec.Measurements, error) {
	var m spec.Measurements
	var values tpm.Values
	if err := s.With(func(d *tpm.Device) (err error) {
		values, err = d.Read(registers...)
		return err
	}); err != nil {
		return m, err
	}
	for _, pcr := range registers {
		m.Pcrs = append(m.Pcrs, spec.PCR{Pcr: pcr, Sha256: values[pcr].String(), Meaning: sealed.Meaning(pcr)})
	}
	log, err := tpm.ReadLog(s.EventLog)
	if err != nil {
		return m, err
	}
	events, err := tpm.ParseLog(log)
	if err != nil {
		return m, err
	}
	m.Events = []spec.MeasuredEvent{}
	for _, e := range events {
		m.Events = append(m.Events, spec.MeasuredEvent{Pcr: e.PCR, Type: e.Type.String(), Sha256: e.SHA256.String(), Description: e.Description()})
	}
	return m, nil
}

// Attest proves what the node booted to who asks with a nonce. QV_ERR_NODEV: the
// machine has no TPM.
func (s *Service) Attest(_ context.Context, digits string) (r attest.Report, err error) {
	nonce, err := attest.ParseNonce(digits)
	if err != nil {
		return r, err
	}
	log, err := s.readLog()
	if err != nil {
		return r, err
	}
	err = s.With(func(d *tpm.Device) error {
		r, err = attest.New(s.Node(), nonce, d, log, s.identity, time.Now())
		return err
	})
	return r, err
}

// AttestVM proves what a VM was started with, and by its TPM, if it has one, what the node
// that measured it booted.
func (s *Service) AttestVM(_ context.Context, vm attest.Started, digits string) (r attest.VMReport, err error) {
	nonce, err := attest.ParseNonce(digits)
	if err != nil {
		return r, err
	}
	log, err := s.readLog()
	if err != nil {
		return r, err
	}
	report := func(d *tpm.Device) error {
		r, err = attest.NewVM(s.Node(), vm, nonce, d, log, s.identity, time.Now())
		return err
	}
	err = s.With(report)
	if errors.Is(err, qverr.NoDev) {
		err = report(nil)
	}
	return r, err
}

// readLog is the firmware's event log, empty on a machine that has none.
func (s *Service) readLog() ([]byte, error) {
	log, err := tpm.ReadLog(s.EventLog)
	if qverr.CodeOf(err) == qverr.NoEnt { // without a TPM there is none, which With says
		return nil, nil
	}
	return log, err
}

// CanEncrypt says why Encrypt would fail, before anything is lost by that.
func (s *Service) CanEncrypt(ctx context.Context) error {
	if err := s.With(func(d *tpm.Device) error {
		_, err := sealed.Current(d)
		return err
	}); err != nil {
		return qverr.New(qverr.CodeOf(err), "encrypt the data volume: %w", err).WithHint("%s", qverr.HintOf(err))
	}
	return loadCrypt(ctx)
}

// Encrypt makes an encrypted volume in a part of a disk, and opens it as a device
// until close is called. It is sealed for this boot and, if uki is not nil, for that
// system. Without a recovery key it has none until SetRecoveryKey. QV_ERR_NODEV: the machine has no TPM; QV_ERR_STATE: this boot was not measured.
func (s *Service) Encrypt(ctx context.Context, p sealed.Place, recoveryKey string, uki *ukifile.File) (device string, closeDevice func() error, err error) {
	if err := loadCrypt(ctx); err != nil {
		return "", nil, err
	}
	err = s.With(func(d *tpm.Device) error {
		now, err := sealed.Current(d)
		if err != nil {
			return err
		}
		policies := []sealed.Policy{now}
		if uki != nil {
			m, err := uki.Measure()
			if err != nil {
				return err
			}
			policies = append(policies, now.Predict(m.Value, "the installed system"))
		}
		device, err = sealed.Encrypt(p, recoveryKey, d, sealed.Distinct(policies)...)
		return err
	})
	return device, func() error { return sealed.Close(sealed.NameNew) }, err
}

// Unlock opens a data volume that stayed shut, and has the daemon start anew on
// it. QV_ERR_BUSY: VMs run, which are not known to the state that is on the volume.
func (s *Service) Unlock(ctx context.Context, recoveryKey string) error {
	if _, err := sealed.ParseRecoveryKey(recoveryKey); err != nil {
		return err
	}
	if s.Init == nil {
		return qverr.New(qverr.Unsupported, "unlock: this daemon runs without QuantaVirt's PID 1")
	}
	if !s.Boot().Data.Locked {
		return qverr.New(qverr.State, "no data volume is shut")
	}
	if n := s.Running(); n > 0 {
		return qverr.New(qverr.Busy, "%d VMs run, whose state is in RAM", n).WithHint("stop them first")
	}
	s.Log.Info("the data volume is opened with the recovery key")
	return s.Init.Unlock(ctx, recoveryKey)
}

// SetRecoveryKey has a recovery key open the data volume, in place of the one before.
// QV_ERR_PERM: the volume is not sealed for this boot.
func (s *Service) SetRecoveryKey(_ context.Context, recoveryKey string) error {
	data := s.Boot().Data
	switch {
	case !data.Encrypted:
		return qverr.New(qverr.State, "the data volume is not encrypted")
	case data.Locked:
		return qverr.New(qverr.State, "the data volume is shut").WithHint("open it first: quantavirt system unlock")
	}
	if _, err := sealed.ParseRecoveryKey(recoveryKey); err != nil {
		return err
	}
	err := s.With(func(d *tpm.Device) error {
		return sealed.SetRecovery(sealed.Place{Device: data.Device}, recoveryKey, d)
	})
	if err == nil {
		s.Log.Warn("the data volume has another recovery key from now on")
	}
	return err
}

// Reseal seals the data volume for this boot and for the systems of all slots.
// The recovery key is needed if it is not sealed for this boot already.
func (s *Service) Reseal(_ context.Context, recoveryKey string) (spec.Sealing, error) {
	boot := s.Boot()
	if !boot.Data.Encrypted {
		return spec.Sealing{}, qverr.New(qverr.State, "the data volume is not encrypted")
	}
	var systems []namedSystem
	if boot.ESPDevice != "" && boot.Slot != "" {
		if err := s.eachSystem(boot.ESPDevice, func(name slot.Name, m ukifile.Measurement) {
			systems = append(systems, namedSystem{"slot " + slot.Digits(name.Sequence), m.Value})
		}); err != nil {
			return spec.Sealing{}, err
		}
	}
	return s.reseal(boot.Data.Device, recoveryKey, systems, false)
}

// ResealFor seals the data volume for one more system, which is about to be
// tried. It does nothing if the volume is not encrypted.
func (s *Service) ResealFor(uki io.ReaderAt, size int64, name string) error {
	data := s.Boot().Data
	if !data.Encrypted {
		return nil
	}
	if data.Locked {
		return qverr.New(qverr.State, "the data volume is shut: the new system could not open it either").
			WithHint("open it first: quantavirt system unlock")
	}
	f, err := ukifile.Open(uki, size)
	if err != nil {
		return err
	}
	m, err := f.Measure()
	if err != nil {
		return err
	}
	_, err = s.reseal(data.Device, "", []namedSystem{{name, m.Value}}, true)
	return err
}

type namedSystem struct {
	name  string
	pcr11 digest.SHA256
}

// reseal seals for this boot, for systems and, with keep, for what the volume is
// sealed for already.
func (s *Service) reseal(device, recoveryKey string, systems []namedSystem, keep bool) (spec.Sealing, error) {
	place := sealed.Place{Device: device}
	out := spec.Sealing{}
	err := s.With(func(d *tpm.Device) error {
		now, err := sealed.Current(d)
		if err != nil {
			return err
		}
		var policies []sealed.Policy
		for _, sys := range systems {
			policies = append(policies, now.Predict(sys.pcr11, sys.name))
		}
		policies = append(policies, now)
		if keep {
			before, err := sealed.Inspect(place)
			if err != nil {
				return err
			}
			policies = append(policies, before.Sealed...)
		}
		policies = sealed.Distinct(policies)
		for _, p := range policies {
			out.SealedFor = append(out.SealedFor, p.For)
		}
		return sealed.Reseal(place, recoveryKey, d, policies...)
	})
	if err == nil {
		s.Log.Info("the data volume is sealed", "for", out.SealedFor)
	}
	return out, err
}
