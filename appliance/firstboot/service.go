package firstboot

import (
	"context"
	"log/slog"
	"slices"
	"sync"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/store"
	"quantavirt/internal/initapi"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
)

const (
	// fetchLimit is how long a server that the command line names is waited for
	// before another source is taken.
	fetchLimit = 5 * time.Minute
	// toldLimit is the same for one that the network has just told of: who answers
	// DHCP answers HTTP too, or is not to be waited for.
	toldLimit = 20 * time.Second
)

const recordKey = "configuration"

// record is what the node remembers of the configuration that it took.
type record struct {
	Source    string    `json:"source"`
	Place     string    `json:"place"`
	SHA256    string    `json:"sha256"`
	AppliedAt time.Time `json:"applied_at"`
	Document  []byte    `json:"document"`
	// Made says that tokens, images, disks and VMs were made, well or not.
	Made     bool              `json:"made"`
	Problems []initapi.Problem `json:"problems"` // of what was made
}

// Options of Open.
type Options struct {
	Log     *slog.Logger
	Machine nodeconfig.Machine
	// Medium reads the document of the boot medium, nil if there is none.
	Medium func() (*nodeconfig.Found, error)
	// URL of a document, from the kernel command line; it wins over that of
	// SMBIOS.
	URL string
	// Ask asks the network from which the node was booted for the URL of a
	// document, "" if there is none. Nil: the node was booted from something else.
	Ask func(ctx context.Context) (string, error)
}

// Service is the configuration of the node.
type Service struct {
	Options
	db *store.DB

	mu       sync.Mutex
	rec      *record // nil: the node has none
	doc      nodeconfig.Document
	wrong    []initapi.Problem // of the document
	finding  []initapi.Problem // of the search
	message  string
	fallback *nodeconfig.Found // taken if the URL gives none
}

// Open reads what the node has and looks at what needs no network: the boot
// medium, and unless the network is to be asked first, SMBIOS and fw_cfg. The
// network is asked where a document is only by a node that has none, whose command
// line names none either: nobody there changes what a node has.
func Open(db *store.DB, o Options) (*Service, error) {
	s := &Service{Options: o, db: db}
	var rec record
	switch err := db.Get(store.Settings, recordKey, &rec); {
	case err == nil:
		s.use(&rec)
	case qverr.CodeOf(err) != qverr.NoEnt:
		return nil, err
	}
	if s.URL != "" || s.rec != nil {
		s.Ask = nil
	}
	found, err := o.Medium()
	s.note(err)
	if found == nil {
		found = s.machine()
		if s.URL != "" || s.Ask != nil {
			s.fallback, found = found, nil
		}
	} else {
		s.URL, s.Ask = "", nil
	}
	return s, s.consider(found)
}

// machine looks at SMBIOS and fw_cfg.
func (s *Service) machine() *nodeconfig.Found {
	found, url, err := s.Machine.OEM()
	s.note(err)
	if s.URL == "" {
		s.URL = url
	}
	if found == nil {
		found, err = s.Machine.FWCfg()
		s.note(err)
	}
	return found
}

// note keeps what went wrong while looking.
func (s *Service) note(err error) {
	if err == nil {
		return
	}
	s.Log.Error("configuration", "err", err)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.finding = append(s.finding, *initapi.NewProblem(err))
}

// Pending says that the node has no configuration yet and a server is to be
// asked for one.
func (s *Service) Pending() bool {
	s.mu.Lock()
	defer s.mu.Unlock()
	return (s.URL != "" || s.Ask != nil) && s.rec == nil
}

// Fetch asks the server, when the network is up, and says whether the node has
// taken another configuration. It may take minutes. Without a server to ask it
// does nothing.
func (s *Service) Fetch(ctx context.Context) (changed bool, err error) {
	if s.URL == "" && s.Ask == nil {
		return false, nil
	}
	before := s.SHA256()
	found := s.told(ctx)
	if found == nil && s.URL != "" {
		found = s.fetch(ctx, s.URL, fetchLimit)
	}
	if ctx.Err() != nil {
		return false, ctx.Err()
	}
	if found == nil {
		found = s.fallback
	}
	err = s.consider(found)
	return s.SHA256() != before, err
}

// told is the document that the network tells of.
func (s *Service) told(ctx context.Context) *nodeconfig.Found {
	if s.Ask == nil {
		return nil
	}
	url, err := s.Ask(ctx)
	if err != nil && ctx.Err() == nil {
		s.note(err)
	}
	if url == "" || err != nil {
		return nil
	}
	s.Log.Info("the network says where the configuration is", "url", url)
	return s.fetch(ctx, url, toldLimit)
}

func (s *Service) fetch(ctx context.Context, url string, limit time.Duration) *nodeconfig.Found {
	limited, cancel := context.WithTimeout(ctx, limit)
	defer cancel()
	found, err := nodeconfig.Fetch(limited, s.Log, url)
	if ctx.Err() == nil {
		s.note(err)
	}
	return found
}

// consider takes a document if the node has none, or if the document wants to
// be taken again.
func (s *Service) consider(found *nodeconfig.Found) error {
	if found == nil {
		return nil
	}
	digest := nodeconfig.Sum(found.Data)
	if have := s.SHA256(); have != "" {
		if have == digest {
			return nil
		}
		if doc, _ := nodeconfig.Parse(found.Data); doc.Apply != nodeconfig.Always {
			s.mu.Lock()
			defer s.mu.Unlock()
			s.message = `another configuration at ` + found.Place + ` is not taken: it does not say "apply": "always"`
			return nil
		}
	}
	rec := &record{
		Source: found.Source, Place: found.Place, SHA256: digest, AppliedAt: time.Now().UTC(),
		Document: found.Data, Problems: []initapi.Problem{},
	}
	s.Log.Info("the node takes its configuration", "source", rec.Source, "place", rec.Place, "sha256", digest)
	if err := s.db.Put(store.Settings, recordKey, rec); err != nil {
		return err
	}
	s.use(rec)
	return nil
}

func (s *Service) use(rec *record) {
	doc, problems := nodeconfig.Parse(rec.Document)
	s.mu.Lock()
	defer s.mu.Unlock()
	s.rec, s.doc, s.wrong = rec, doc, []initapi.Problem{}
	for _, err := range problems {
		s.Log.Error("configuration", "err", err)
		s.wrong = append(s.wrong, *initapi.NewProblem(err))
	}
}

// Document is what the node has, the zero value if it has none.
func (s *Service) Document() nodeconfig.Document {
	s.mu.Lock()
	defer s.mu.Unlock()
	return s.doc
}

// Bytes are those of the document as it was found, nil if there is none.
func (s *Service) Bytes() []byte {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec == nil {
		return nil
	}
	return slices.Clone(s.rec.Document)
}

// SHA256 names the document, "" if there is none.
func (s *Service) SHA256() string {
	s.mu.Lock()
	defer s.mu.Unlock()
	if s.rec == nil {
		return ""
	}
	return s.rec.SHA256
}

// Report adds problems that others have with a part of the document.
func (s *Service) Report(errs ...error) {
	for _, err := range errs {
		s.note(err)
	}
}

// Info is what the API shows.
func (s *Service) Info() spec.ConfigurationInfo {
	s.mu.Lock()
	defer s.mu.Unlock()
	info := spec.ConfigurationInfo{Message: s.message, Problems: slices.Concat([]initapi.Problem{}, s.wrong, s.finding)}
	if s.rec != nil {
		at := s.rec.AppliedAt
		info.Source, info.Place, info.Sha256, info.AppliedAt = spec.ConfigurationInfoSource(s.rec.Source), s.rec.Place, s.rec.SHA256, &at
		info.Problems = append(info.Problems, s.rec.Problems...)
	}
	return info
}
