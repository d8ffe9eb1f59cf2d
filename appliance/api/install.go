package api

import (
	"net/http"
	"strings"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/install"
	"quantavirt/internal/qverr"
)

// Install puts the node on a disk, from the boot medium, a URL or the body.
func (s *Server) Install(w http.ResponseWriter, r *http.Request, params spec.InstallParams) {
	var t spec.Task
	var err error
	if mediaType(r) == octets {
		t, err = s.installUpload(w, r, params)
	} else {
		t, err = s.installRequest(w, r, params)
	}
	s.accepted(w, r, t, params.Wait, err)
}

func (s *Server) installUpload(w http.ResponseWriter, r *http.Request, params spec.InstallParams) (spec.Task, error) {
	if params.Disk == "" {
		return spec.Task{}, qverr.New(qverr.Inval, "query parameter disk is missing").With("parameter", "disk")
	}
	request := install.Request{Disk: params.Disk, WipeSerial: params.WipeSerial, RecoveryKey: params.RecoveryKey}
	body, err := s.upload(w, r)
	if err == nil {
		_, err = s.Deps.Install.Check(request)
	}
	if err != nil {
		return spec.Task{}, err
	}
	source, err := s.Deps.Install.Upload(body, r.ContentLength)
	if err != nil {
		return spec.Task{}, err
	}
	return s.Deps.Install.Start(request, source, requestOf(r).id)
}

func (s *Server) installRequest(w http.ResponseWriter, r *http.Request, params spec.InstallParams) (spec.Task, error) {
	if params.Disk != "" || params.WipeSerial != "" || params.RecoveryKey != "" {
		return spec.Task{}, qverr.New(qverr.Inval, "the parameters disk, wipe_serial and Recovery-Key go with a body of type %s", octets)
	}
	var in spec.InstallRequest
	if err := s.decode(w, r, "InstallRequest", false, &in); err != nil {
		return spec.Task{}, err
	}
	switch {
	case strings.HasPrefix(in.URL, "http:") && in.Sha256 == "":
		return spec.Task{}, qverr.New(qverr.Config, "sha256 is missing: what comes over plain HTTP must have one").With("path", "sha256")
	case in.DataOnly && in.URL != "":
		return spec.Task{}, qverr.New(qverr.Config, "url goes with an installation, not with data_only").With("path", "url")
	}
	return s.Deps.Install.Start(install.Request{Disk: in.Disk, WipeSerial: in.WipeSerial, DataOnly: in.DataOnly, RecoveryKey: in.RecoveryKey},
		install.Source{URL: in.URL, SHA256: in.Sha256}, requestOf(r).id)
}
