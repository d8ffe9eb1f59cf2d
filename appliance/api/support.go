package api

import (
	"mime"
	"net/http"

	"quantavirt/internal/qverr"
)

// GetSupportBundle answers with a support bundle as it is made.
func (s *Server) GetSupportBundle(w http.ResponseWriter, r *http.Request) {
	b, err := s.Support.Begin()
	if err != nil {
		s.fail(w, r, err)
		return
	}
	defer b.Close()
	w.Header().Set("Content-Type", "application/gzip")
	w.Header().Set("Content-Disposition", mime.FormatMediaType("attachment", map[string]string{"filename": b.Name()}))
	if err := b.Write(r.Context(), &stallWriter{c: http.NewResponseController(w), w: w}); err != nil {
		s.Log.Error("support bundle", "err", qverr.New(qverr.CodeOf(err), "%w", err), "request_id", requestOf(r).id)
		panic(http.ErrAbortHandler) // the client must not take half of it for all
	}
}

// Flush sends what was written.
func (s *stallWriter) Flush() error { return s.c.Flush() }
