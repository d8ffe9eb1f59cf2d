package api

import (
	"encoding/base64"
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// BackUp answers with the node's state as one encrypted file.
func (s *Server) BackUp(w http.ResponseWriter, r *http.Request) {
	var in spec.BackupRequest
	if err := s.decode(w, r, "BackupRequest", false, &in); err != nil {
		s.fail(w, r, err)
		return
	}
	p, err := s.Backup.Prepare(in.Passphrase)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer p.Close()
	w.Header().Set("Content-Type", octets)
	if err := p.Write(&stallWriter{c: http.NewResponseController(w), w: w}); err != nil {
		s.Log.Error("backup", "err", qverr.New(qverr.CodeOf(err), "%w", err), "request_id", requestOf(r).id)
		panic(http.ErrAbortHandler) // the client must not take half of it for all
	}
}

// stallWriter gives each piece of an answer its own deadline.
type stallWriter struct {
	c *http.ResponseController
	w http.ResponseWriter
}

func (s *stallWriter) Write(p []byte) (int, error) {
	_ = s.c.SetWriteDeadline(time.Now().Add(stallTime))
	return s.w.Write(p)
}

// Restore brings a backup back.
func (s *Server) Restore(w http.ResponseWriter, r *http.Request, params spec.RestoreParams) {
	secret, err := base64.StdEncoding.DecodeString(params.XPassphrase)
	if err != nil || len(secret) == 0 {
		s.fail(w, r, qverr.New(qverr.Inval, "the header X-Passphrase is not there, or not base64"))
		return
	}
	body, err := s.upload(w, r)
	if err != nil {
		s.fail(w, r, err)
		return
	}
	m, err := s.Backup.Restore(body, string(secret))
	s.answer(w, r, http.StatusAccepted, spec.Restored{Hostname: m.Hostname, NodeID: m.NodeID, Version: m.Version, CreatedAt: m.CreatedAt}, err)
}
