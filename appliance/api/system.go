package api

import (
	"net/http"
	"strconv"
	"strings"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/internal/version"
)

// GetHealth answers as long as the daemon can.
func (s *Server) GetHealth(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, spec.Health{Status: spec.HealthStatusOk, Version: version.Version})
}

// GetReady answers 200 once the daemon has started completely.
func (s *Server) GetReady(w http.ResponseWriter, r *http.Request) {
	if err := s.System.Ready(); err != nil {
		s.fail(w, r, err)
		return
	}
	s.GetHealth(w, r)
}

// GetSystemInfo shows the node.
func (s *Server) GetSystemInfo(w http.ResponseWriter, r *http.Request) {
	info, err := s.System.Info(r.Context())
	s.answer(w, r, http.StatusOK, info, err)
}

// GetCapabilities shows what the node can do.
func (s *Server) GetCapabilities(w http.ResponseWriter, r *http.Request) {
	c, err := s.System.Capabilities(r.Context())
	s.answer(w, r, http.StatusOK, c, err)
}

// ListSystemDisks shows the disks of the machine.
func (s *Server) ListSystemDisks(w http.ResponseWriter, r *http.Request) {
	disks, err := s.System.Disks()
	s.answer(w, r, http.StatusOK, spec.SystemDiskList{Items: disks}, err)
}

// ListSystemPCI shows the PCI functions of the machine.
func (s *Server) ListSystemPCI(w http.ResponseWriter, r *http.Request) {
	functions, err := s.PCI.List()
	s.answer(w, r, http.StatusOK, spec.SystemPCIList{Items: functions}, err)
}

// ListErrors shows the catalogue.
func (s *Server) ListErrors(w http.ResponseWriter, r *http.Request, params spec.ListErrorsParams) {
	if params.Code == "" {
		reply(w, http.StatusOK, spec.ErrorCatalogue{Items: qverr.All()})
		return
	}
	e, ok := qverr.LookupName(params.Code)
	if n, err := strconv.ParseInt(strings.TrimSpace(params.Code), 10, 32); err == nil {
		e, ok = qverr.Lookup(qverr.Code(n))
	}
	if !ok {
		s.fail(w, r, qverr.New(qverr.NoEnt, "the catalogue has no %.64q", params.Code))
		return
	}
	reply(w, http.StatusOK, spec.ErrorCatalogue{Items: []spec.ErrorEntry{e}})
}

// Reboot asks PID 1 to end everything in order.
func (s *Server) Reboot(w http.ResponseWriter, r *http.Request) {
	err := s.System.Reboot(r.Context())
	s.answer(w, r, http.StatusAccepted, spec.PowerAction{Action: spec.PowerActionActionReboot}, err)
}

// PowerOff asks PID 1 to end everything in order.
func (s *Server) PowerOff(w http.ResponseWriter, r *http.Request) {
	err := s.System.PowerOff(r.Context())
	s.answer(w, r, http.StatusAccepted, spec.PowerAction{Action: spec.PowerActionActionPoweroff}, err)
}

// ListTokens never shows secrets.
func (s *Server) ListTokens(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, spec.TokenList{Items: s.Tokens.List()})
}

// CreateToken shows the secret, this once.
func (s *Server) CreateToken(w http.ResponseWriter, r *http.Request) {
	var in spec.TokenCreate
	if err := s.decode(w, r, "TokenCreate", false, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	if in.Role == "" {
		in.Role = spec.TokenRoleAdmin
	}
	made, err := s.Tokens.Create(in.Description, in.Role, time.Duration(in.ExpiresIn)*time.Second, spec.TokenOriginAPI)
	s.answer(w, r, http.StatusCreated, made, err)
}

// RevokeToken makes a token worthless.
func (s *Server) RevokeToken(w http.ResponseWriter, r *http.Request, id string) {
	s.answer(w, r, http.StatusNoContent, nil, s.Tokens.Revoke(id))
}
