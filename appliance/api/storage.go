package api

import (
	"io"
	"mime"
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

const octets = "application/octet-stream"

// ListImages shows all images.
func (s *Server) ListImages(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, spec.ImageList{Items: s.Storage.Images()})
}

// GetImage shows one image.
func (s *Server) GetImage(w http.ResponseWriter, r *http.Request, id string) {
	i, err := s.Storage.Image(id)
	s.answer(w, r, http.StatusOK, i, err)
}

// DeleteImage removes an image.
func (s *Server) DeleteImage(w http.ResponseWriter, r *http.Request, id string) {
	s.answer(w, r, http.StatusNoContent, nil, s.Storage.DeleteImage(id))
}

// UploadImage stores the body as an image.
func (s *Server) UploadImage(w http.ResponseWriter, r *http.Request, params spec.UploadImageParams) {
	var image spec.Image
	body, err := s.upload(w, r)
	if err == nil {
		image, err = s.Storage.UploadImage(r.Context(), params.ID, params.Kind, body, r.ContentLength)
	}
	s.answer(w, r, http.StatusCreated, image, err)
}

// ListDisks shows all disks.
func (s *Server) ListDisks(w http.ResponseWriter, _ *http.Request) {
	reply(w, http.StatusOK, spec.DiskList{Items: s.Storage.Disks()})
}

// GetDisk shows one disk.
func (s *Server) GetDisk(w http.ResponseWriter, r *http.Request, name string) {
	d, err := s.Storage.Disk(name)
	s.answer(w, r, http.StatusOK, d, err)
}

// DeleteDisk removes a disk.
func (s *Server) DeleteDisk(w http.ResponseWriter, r *http.Request, name string) {
	s.answer(w, r, http.StatusNoContent, nil, s.Storage.DeleteDisk(name))
}

// CreateDisk makes an empty disk, or stores the body as one.
func (s *Server) CreateDisk(w http.ResponseWriter, r *http.Request, params spec.CreateDiskParams) {
	if mediaType(r) == octets {
		s.uploadDisk(w, r, params)
		return
	}
	if params.Name != "" || params.Size != "" {
		s.fail(w, r, qverr.New(qverr.Inval, "the query parameters name and size go with a body of type %s", octets))
		return
	}
	var in spec.DiskCreate
	var disk spec.Disk
	err := s.decode(w, r, "DiskCreate", false, &in)
	if err == nil {
		disk, err = s.Storage.CreateDisk(r.Context(), in)
	}
	s.answer(w, r, http.StatusCreated, disk, err)
}

func (s *Server) uploadDisk(w http.ResponseWriter, r *http.Request, params spec.CreateDiskParams) {
	var disk spec.Disk
	var size spec.ByteSize
	if params.Name == "" {
		s.fail(w, r, qverr.New(qverr.Inval, "query parameter name is missing").With("parameter", "name"))
		return
	}
	body, err := s.upload(w, r)
	if err == nil && params.Size != "" {
		if size, err = spec.ParseSize(params.Size); err != nil {
			err = qverr.New(qverr.Inval, "query parameter size: %w", err).With("parameter", "size")
		}
	}
	if err == nil {
		disk, err = s.Storage.UploadDisk(r.Context(), params.Name, body, r.ContentLength, int64(size))
	}
	s.answer(w, r, http.StatusCreated, disk, err)
}

func mediaType(r *http.Request) string {
	t, _, err := mime.ParseMediaType(r.Header.Get("Content-Type"))
	if err != nil {
		return ""
	}
	return t
}

// upload checks the head of an upload; its body may take long but not stall.
func (s *Server) upload(w http.ResponseWriter, r *http.Request) (io.Reader, error) {
	if r.ContentLength <= 0 {
		return nil, qverr.New(qverr.Inval, "an upload needs a Content-Length above 0")
	}
	return &stallReader{c: http.NewResponseController(w), r: r.Body}, nil
}

// stallReader gives each piece of a body its own deadline.
type stallReader struct {
	c *http.ResponseController
	r io.Reader
}

func (s *stallReader) Read(p []byte) (int, error) {
	_ = s.c.SetReadDeadline(time.Now().Add(stallTime))
	n, err := s.r.Read(p)
	if err != nil {
		_ = s.c.SetReadDeadline(time.Time{})
	}
	return n, err
}
