package api

import (
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/network"
)

// ListNetworks shows all networks.
func (s *Server) ListNetworks(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, spec.NetworkList{Items: s.Networks.List()})
}

// GetNetwork shows one network.
func (s *Server) GetNetwork(w http.ResponseWriter, r *http.Request, name string) {
	n, err := s.Networks.Get(name)
	s.answer(w, r, http.StatusOK, n, err)
}

// ListLeases shows the addresses that guests have.
func (s *Server) ListLeases(w http.ResponseWriter, r *http.Request, name string) {
	leases, err := s.Networks.Leases(name)
	s.answer(w, r, http.StatusOK, spec.LeaseList{Items: leases}, err)
}

// GetUplink shows how the node is connected.
func (s *Server) GetUplink(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, s.Networks.UplinkState())
}

// SetUplink changes how the node is connected, until that is confirmed or reverted.
func (s *Server) SetUplink(w http.ResponseWriter, r *http.Request, params spec.SetUplinkParams) {
	var in spec.UplinkConfig
	if err := s.decode(w, r, "UplinkConfig", false, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	limit := network.ConfirmTime
	if params.ConfirmSeconds != 0 {
		limit = time.Duration(params.ConfirmSeconds) * time.Second
	}
	u, err := s.Networks.SetUplink(in, limit)
	s.answer(w, r, http.StatusAccepted, u, err)
}

// ConfirmUplink keeps the change.
func (s *Server) ConfirmUplink(w http.ResponseWriter, r *http.Request) {
	u, err := s.Networks.ConfirmUplink()
	s.answer(w, r, http.StatusOK, u, err)
}
