package api

import (
	"net/http"

	"quantavirt/appliance/api/spec"
)

// GetMeasurements shows the TPM's registers and the events of this boot.
func (s *Server) GetMeasurements(w http.ResponseWriter, r *http.Request) {
	m, err := s.Trust.Measurements(r.Context())
	s.answer(w, r, http.StatusOK, m, err)
}

// Attest proves what the node booted.
func (s *Server) Attest(w http.ResponseWriter, r *http.Request) {
	var in spec.AttestRequest
	if err := s.decode(w, r, "AttestRequest", false, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	report, err := s.Trust.Attest(r.Context(), in.Nonce)
	s.answer(w, r, http.StatusOK, report, err)
}

// Unlock opens a shut data volume.
func (s *Server) Unlock(w http.ResponseWriter, r *http.Request) {
	var in spec.UnlockRequest
	err := s.decode(w, r, "UnlockRequest", false, &in)
	if err == nil {
		err = s.Trust.Unlock(r.Context(), in.RecoveryKey)
	}
	s.answer(w, r, http.StatusAccepted, struct{}{}, err)
}

// Reseal seals the data volume for this boot and those of all slots.
func (s *Server) Reseal(w http.ResponseWriter, r *http.Request) {
	var in spec.ResealRequest
	if err := s.decode(w, r, "ResealRequest", false, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	sealing, err := s.Trust.Reseal(r.Context(), in.RecoveryKey)
	s.answer(w, r, http.StatusOK, sealing, err)
}

// SetRecoveryKey has a recovery key open the data volume.
func (s *Server) SetRecoveryKey(w http.ResponseWriter, r *http.Request) {
	var in spec.RecoveryKeyRequest
	err := s.decode(w, r, "RecoveryKeyRequest", false, &in)
	if err == nil {
		err = s.Trust.SetRecoveryKey(r.Context(), in.RecoveryKey)
	}
	s.answer(w, r, http.StatusNoContent, nil, err)
}
