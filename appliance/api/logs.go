package api

import (
	"net/http"

	"quantavirt/appliance/api/spec"
)

// ListLogs shows the node's log.
func (s *Server) ListLogs(w http.ResponseWriter, r *http.Request, params spec.ListLogsParams) {
	list, err := s.Logs.List(r.Context(), params)
	s.answer(w, r, http.StatusOK, list, err)
}

// RestartDaemon answers, and then ends the daemon.
func (s *Server) RestartDaemon(w http.ResponseWriter, r *http.Request) {
	err := s.System.RestartDaemon()
	s.answer(w, r, http.StatusAccepted, spec.PowerAction{Action: spec.PowerActionActionRestartDaemon}, err)
}
