package api

import (
	"io"
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/update"
	"quantavirt/internal/qverr"
)

// UpdateSystem installs the bundle that the body is or names.
func (s *Server) UpdateSystem(w http.ResponseWriter, r *http.Request, params spec.UpdateSystemParams) {
	o := update.Options{
		Check: params.Check, Force: params.Force, NoReboot: params.NoReboot, Kexec: params.Kexec,
		Good: time.Duration(params.Good) * time.Second, Limit: time.Duration(params.Limit) * time.Second,
	}
	if o.NoReboot && o.Kexec {
		s.fail(w, r, qverr.New(qverr.Inval, "no_reboot and kexec exclude each other").With("parameter", "kexec"))
		return
	}
	id := requestOf(r).id
	var t spec.Task
	var err error
	if mediaType(r) == octets {
		var body io.Reader
		if body, err = s.upload(w, r); err == nil {
			t, err = s.Update.Upload(r.Context(), id, body, o)
		}
	} else {
		var in spec.UpdateSource
		if err = s.decode(w, r, "UpdateSource", false, &in); err == nil {
			t, err = s.Update.Download(r.Context(), id, in.URL, o)
		}
	}
	s.accepted(w, r, t, params.Wait, err)
}

// ListSlots shows the installed systems.
func (s *Server) ListSlots(w http.ResponseWriter, r *http.Request) {
	list, err := s.Update.Slots(r.Context())
	s.answer(w, r, http.StatusOK, list, err)
}

// RollBack makes the slot before the one that boots, and reboots.
func (s *Server) RollBack(w http.ResponseWriter, r *http.Request) {
	action, err := s.Update.RollBack(r.Context())
	s.answer(w, r, http.StatusAccepted, action, err)
}
