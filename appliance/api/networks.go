package api

import (
	"net/http"

	"quantavirt/appliance/api/spec"
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
