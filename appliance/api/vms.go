package api

import (
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// ListVMs shows all VMs.
func (s *Server) ListVMs(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, spec.VMList{Items: s.VMs.List()})
}

// CreateVM defines a VM.
func (s *Server) CreateVM(w http.ResponseWriter, r *http.Request, params spec.CreateVMParams) {
	tree, err := s.tree(w, r)
	if err == nil && tree == nil {
		err = qverr.Malformed("the body is empty")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	made, err := s.VMs.Create(tree, params.DryRun)
	status := http.StatusCreated
	if params.DryRun {
		status = http.StatusOK
	} else if err == nil {
		w.Header().Set("Location", "/api/v1/vms/"+made.Name)
	}
	s.answer(w, r, status, made, err)
}

// GetVM shows one VM.
func (s *Server) GetVM(w http.ResponseWriter, r *http.Request, name string) {
	v, err := s.VMs.Get(name)
	s.answer(w, r, http.StatusOK, v, err)
}

// UpdateVM changes the configuration of a VM.
func (s *Server) UpdateVM(w http.ResponseWriter, r *http.Request, name string) {
	tree, err := s.tree(w, r)
	patch, ok := tree.(map[string]any)
	if err == nil && !ok {
		err = qverr.Malformed("a patch is a JSON object")
	}
	if err != nil {
		s.fail(w, r, err)
		return
	}
	v, err := s.VMs.Update(r.Context(), name, patch)
	s.answer(w, r, http.StatusOK, v, err)
}

// DestroyVM forgets a VM.
func (s *Server) DestroyVM(w http.ResponseWriter, r *http.Request, name string, params spec.DestroyVMParams) {
	t, err := s.VMs.Destroy(name, requestOf(r).id, params.Force)
	s.accepted(w, r, t, params.Wait, err)
}

// StartVM starts a VM.
func (s *Server) StartVM(w http.ResponseWriter, r *http.Request, name string, params spec.StartVMParams) {
	t, err := s.VMs.Start(r.Context(), name, requestOf(r).id)
	s.accepted(w, r, t, params.Wait, err)
}

// StopVM presses the power button, or ends the VM.
func (s *Server) StopVM(w http.ResponseWriter, r *http.Request, name string, params spec.StopVMParams) {
	var in spec.StopOptions
	if err := s.decode(w, r, "StopOptions", true, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	t, err := s.VMs.Stop(name, requestOf(r).id, in.Force, time.Duration(in.Timeout)*time.Second)
	s.accepted(w, r, t, params.Wait, err)
}

// PauseVM stops the vCPUs.
func (s *Server) PauseVM(w http.ResponseWriter, r *http.Request, name string, params spec.PauseVMParams) {
	t, err := s.VMs.Pause(name, requestOf(r).id)
	s.accepted(w, r, t, params.Wait, err)
}

// ResumeVM lets the vCPUs run on.
func (s *Server) ResumeVM(w http.ResponseWriter, r *http.Request, name string, params spec.ResumeVMParams) {
	t, err := s.VMs.Resume(name, requestOf(r).id)
	s.accepted(w, r, t, params.Wait, err)
}

// ResetVM presses the reset button.
func (s *Server) ResetVM(w http.ResponseWriter, r *http.Request, name string, params spec.ResetVMParams) {
	t, err := s.VMs.Reset(name, requestOf(r).id)
	s.accepted(w, r, t, params.Wait, err)
}

// AttestVM proves what a VM was started with.
func (s *Server) AttestVM(w http.ResponseWriter, r *http.Request, name string) {
	var in spec.AttestRequest
	if err := s.decode(w, r, "AttestRequest", false, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	started, err := s.VMs.Measured(name)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	report, err := s.Trust.AttestVM(r.Context(), started, in.Nonce)
	s.answer(w, r, http.StatusOK, report, err)
}

// GetVMStats shows what a VM uses.
func (s *Server) GetVMStats(w http.ResponseWriter, r *http.Request, name string) {
	v, err := s.VMs.Stats(r.Context(), name)
	s.answer(w, r, http.StatusOK, v, err)
}

// GetVMCrash shows what is known of a VM's last crash.
func (s *Server) GetVMCrash(w http.ResponseWriter, r *http.Request, name string) {
	c, err := s.VMs.Crash(name)
	s.answer(w, r, http.StatusOK, c, err)
}
