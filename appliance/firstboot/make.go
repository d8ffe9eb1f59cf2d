package firstboot

import (
	"context"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/internal/initapi"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
)

// Storage keeps images and disks.
type Storage interface {
	Image(id string) (spec.Image, error)
	UploadImage(ctx context.Context, id string, kind spec.ImageKind, body io.Reader, length int64) (spec.Image, error)
	DeleteImage(id string) error
	HasDisk(name string) error
	CreateDisk(ctx context.Context, in spec.DiskCreate) (spec.Disk, error)
	UploadDisk(ctx context.Context, name string, body io.Reader, length, size int64) (spec.Disk, error)
	DeleteDisk(name string) error
}

// VMs keeps the virtual machines.
type VMs interface {
	Get(name string) (spec.VM, error)
	Create(tree any, dryRun bool) (spec.VM, error)
	Start(ctx context.Context, name, requestID string) (spec.Task, error)
}

// Tokens keeps the API tokens.
type Tokens interface {
	TrustHash(hash, description string, role spec.TokenRole) error
}

// Tokens trusts the tokens of a configuration that was just taken.
func (s *Service) Tokens(keep Tokens) {
	if !s.unmade() {
		return
	}
	for i, t := range s.Document().Tokens {
		s.note(at(fmt.Sprintf("tokens[%d]", i), keep.TrustHash(t.Hash, t.Description, spec.TokenRole(t.Role))))
	}
}

// unmade says that a configuration was taken whose things are not made yet.
func (s *Service) unmade() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.rec != nil && !s.rec.Made
}

// at gives an error its place in the document.
func at(path string, err error) error {
	if err == nil {
		return nil
	}
	place := path
	if inner, ok := qverr.From(err).Details["path"].(string); ok && inner != "" {
		place += "." + inner
	}
	return qverr.New(qverr.CodeOf(err), "%s: %w", path, err).With("path", place).WithHint("%s", qverr.HintOf(err))
}

// maker makes what a document names.
type maker struct {
	s       *Service
	storage Storage
	vms     VMs
	errs    []error
}

// Make makes images, disks and VMs of a configuration that was just taken, as
// a task. What there is already under a name stays as it is. The error is nil
// if nothing is to be made.
func (s *Service) Make(ctx context.Context, tasks *task.Manager, storage Storage, vms VMs) error {
	if !s.unmade() {
		return nil
	}
	doc := s.Document()
	m := &maker{s: s, storage: storage, vms: vms}
	if len(doc.Images)+len(doc.Disks)+len(doc.VMs) > 0 {
		t, err := tasks.Start(task.Spec{Kind: "configuration.apply", Target: "system/configuration"}, func(ctx context.Context, p *task.Progress) error {
			m.all(ctx, doc, p)
			return errors.Join(m.errs...)
		})
		if err != nil {
			return err
		}
		if t, err = tasks.Wait(ctx, t.ID); err != nil || !task.Final(t.State) {
			return err // made again by the next daemon
		}
	}
	return s.made(m.errs)
}

// made keeps how it went.
func (s *Service) made(errs []error) error {
	s.mu.Lock()
	defer s.mu.Unlock()
	rec := *s.rec
	rec.Made, rec.Problems = true, []initapi.Problem{}
	for _, err := range errs {
		rec.Problems = append(rec.Problems, *initapi.NewProblem(err))
	}
	if err := s.db.Put(store.Settings, recordKey, rec); err != nil {
		return err
	}
	s.rec = &rec
	return nil
}

func (m *maker) all(ctx context.Context, doc nodeconfig.Document, p *task.Progress) {
	total, done := int64(len(doc.Images)+len(doc.Disks)+len(doc.VMs)), int64(0)
	step := func(path, what string, make func() error) {
		if ctx.Err() != nil {
			return
		}
		p.Phase(what)
		if err := at(path, make()); err != nil && ctx.Err() == nil {
			m.s.Log.Error("configuration", "err", err)
			m.errs = append(m.errs, err)
		}
		done++
		p.Set(done, total, "objects")
	}
	for _, i := range doc.Images {
		step(i.Path, "image "+i.ID, func() error { return m.image(ctx, i) })
	}
	for _, k := range doc.Disks {
		step(k.Path, "disk "+k.Name, func() error { return m.disk(ctx, k) })
	}
	for _, v := range doc.VMs {
		step(v.Path, "VM "+v.Name, func() error { return m.vm(ctx, v) })
	}
}

func (m *maker) image(ctx context.Context, i nodeconfig.Image) error {
	if have, err := m.storage.Image(i.ID); err == nil {
		if i.SHA256 != "" && have.Sha256 != i.SHA256 {
			return qverr.New(qverr.Exist, "there is already another image %s", i.ID)
		}
		return nil
	}
	return fetch(ctx, i.URL, func(body io.Reader, length int64) error {
		made, err := m.storage.UploadImage(ctx, i.ID, spec.ImageKind(i.Kind), body, length)
		if err != nil {
			return err
		}
		return verify(i.URL, i.SHA256, made.Sha256, func() error { return m.storage.DeleteImage(i.ID) })
	})
}

func (m *maker) disk(ctx context.Context, k nodeconfig.Disk) error {
	if m.storage.HasDisk(k.Name) == nil {
		return nil
	}
	size, err := spec.ParseSize(k.Size)
	if k.Size != "" && err != nil {
		return qverr.New(qverr.Config, "size: %w", err).With("path", "size")
	}
	if k.URL == "" {
		_, err := m.storage.CreateDisk(ctx, spec.DiskCreate{Name: k.Name, Size: size})
		return err
	}
	return fetch(ctx, k.URL, func(body io.Reader, length int64) error {
		made, err := m.storage.UploadDisk(ctx, k.Name, body, length, int64(size))
		if err != nil {
			return err
		}
		return verify(k.URL, k.SHA256, made.Sha256, func() error { return m.storage.DeleteDisk(k.Name) })
	})
}

// verify holds what came against its sum, and removes what is not right.
func verify(url, want, have string, remove func() error) error {
	if want == "" || want == have {
		return nil
	}
	return errors.Join(qverr.New(qverr.IO, "%s has the SHA-256 %s, the configuration says %s", url, have, want), remove())
}

// vm defines a VM, and starts it if it has autostart.
func (m *maker) vm(ctx context.Context, v nodeconfig.VM) error {
	if _, err := m.vms.Get(v.Name); err == nil {
		return nil
	}
	made, err := m.vms.Create(v.Config, false)
	if err != nil || !made.Config.Autostart.Enabled {
		return err
	}
	_, err = m.vms.Start(ctx, v.Name, "")
	return err
}

// Tries of a download, and the pause between them.
const (
	tries    = 3
	tryPause = 3 * time.Second
)

// fetch downloads and tries again what the network has cut.
func fetch(ctx context.Context, url string, store func(body io.Reader, length int64) error) error {
	for n := 1; ; n++ {
		err := get(ctx, url, store)
		if err == nil || n == tries || !errors.Is(err, qverr.IO) {
			return err
		}
		select {
		case <-ctx.Done():
			return ctx.Err()
		case <-time.After(tryPause):
		}
	}
}

func get(ctx context.Context, url string, store func(body io.Reader, length int64) error) error {
	req, err := http.NewRequestWithContext(ctx, http.MethodGet, url, nil)
	if err != nil {
		return qverr.New(qverr.Config, "%w", err)
	}
	resp, err := http.DefaultClient.Do(req)
	if err != nil {
		return qverr.New(qverr.IO, "%w", err)
	}
	defer func() { _ = resp.Body.Close() }()
	switch {
	case resp.StatusCode == http.StatusNotFound:
		return qverr.New(qverr.NoEnt, "%s: %s", url, resp.Status)
	case resp.StatusCode != http.StatusOK:
		return qverr.New(qverr.IO, "%s: %s", url, resp.Status)
	case resp.ContentLength <= 0:
		return qverr.New(qverr.Inval, "%s comes without its length", url)
	}
	return store(resp.Body, resp.ContentLength)
}
