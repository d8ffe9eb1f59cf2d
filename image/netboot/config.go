package netboot

import (
	"bytes"
	"encoding/json"
	"errors"
	"fmt"
	"net/netip"
	"regexp"
	"strings"

	"github.com/google/uuid"
	"sigs.k8s.io/yaml"

	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/qverr"
	"quantavirt/netstack/mac"
)

// Entry is one machine in the configuration.
type Entry struct {
	Name    string // for the log; in full mode also the host name that DHCP tells
	MACs    []mac.Addr
	Serial  string
	UUID    uuid.UUID
	Address netip.Addr      // what DHCP gives it in full mode; may be invalid
	Cmdline string          // words for the kernel, after those of Options.Cmdline
	Config  json.RawMessage // its quantavirt.json; nil: it has none
}

// keys names every part by which the entry is found.
func (e *Entry) keys() []string {
	keys := Identity{Serial: e.Serial, UUID: e.UUID}.keys()
	for _, m := range e.MACs {
		keys = append(keys, macKey(m))
	}
	return keys
}

// Set is the configuration of all machines. The zero value knows none.
type Set struct {
	entries []*Entry
	byKey   map[string]*Entry
	rest    *Entry // for machines without an entry; may be nil
}

// Find returns the entry of a machine: by MAC address, else by serial number,
// else by UUID.
func (s *Set) Find(id Identity) (*Entry, bool) {
	for _, k := range id.keys() {
		if e := s.byKey[k]; e != nil {
			return e, true
		}
	}
	return nil, false
}

// Default is what machines without an entry get; nil means nothing.
func (s *Set) Default() *Entry { return s.rest }

// Len is the number of machines.
func (s *Set) Len() int { return len(s.entries) }

// words are the kernel's words for a machine.
func (s *Set) words(e *Entry) string {
	switch {
	case e == nil:
		return ""
	case e.Cmdline == "" && s.rest != nil:
		return s.rest.Cmdline
	}
	return e.Cmdline
}

// config is the configuration of a machine, that of the default if its entry
// has none of its own; nil if there is none.
func (s *Set) config(e *Entry) json.RawMessage {
	switch {
	case e == nil:
		return nil
	case e.Config == nil && s.rest != nil:
		return s.rest.Config
	}
	return e.Config
}

// document is a configuration file.
type document struct {
	Default  *documentEntry  `json:"default"`
	Machines []documentEntry `json:"machines"`
}

type documentEntry struct {
	Name    string          `json:"name"`
	MAC     oneOrMore       `json:"mac"`
	Serial  string          `json:"serial"`
	UUID    string          `json:"uuid"`
	Address string          `json:"address"`
	Cmdline string          `json:"cmdline"`
	Config  json.RawMessage `json:"config"`
}

// oneOrMore is a text or a list of texts.
type oneOrMore []string

func (o *oneOrMore) UnmarshalJSON(b []byte) error {
	if len(b) > 0 && b[0] == '[' {
		return json.Unmarshal(b, (*[]string)(o))
	}
	var s string
	if err := json.Unmarshal(b, &s); err != nil {
		return err
	}
	*o = oneOrMore{s}
	return nil
}

// Parse reads a configuration file, YAML or JSON, and checks each machine's
// configuration as a node does. Errors carry QV_ERR_CONFIG and name the machine.
func Parse(data []byte) (*Set, error) {
	text, err := yaml.YAMLToJSONStrict(data)
	if err != nil {
		return nil, qverr.New(qverr.Config, "neither YAML nor JSON: %w", err)
	}
	var doc document
	dec := json.NewDecoder(bytes.NewReader(text))
	dec.DisallowUnknownFields()
	if err := dec.Decode(&doc); err != nil {
		return nil, qverr.New(qverr.Config, "read the machines: %w", err)
	}
	set := &Set{byKey: make(map[string]*Entry)}
	for i, d := range doc.Machines {
		e, err := d.entry()
		if err == nil {
			err = set.add(e)
		}
		if err != nil {
			return nil, qverr.New(qverr.Config, "machine %d%s: %w", i+1, quoted(d.Name), err)
		}
	}
	if doc.Default == nil {
		return set, nil
	}
	e, err := doc.Default.entry()
	if err == nil {
		err = set.setDefault(e)
	}
	if err != nil {
		return nil, qverr.New(qverr.Config, "default: %w", err)
	}
	return set, nil
}

func quoted(name string) string {
	if name == "" {
		return ""
	}
	return fmt.Sprintf(" (%q)", name)
}

func (d documentEntry) entry() (*Entry, error) {
	e := &Entry{Name: d.Name, Serial: serialOf(d.Serial), UUID: uuidOf(d.UUID), Cmdline: d.Cmdline, Config: d.Config}
	for _, s := range d.MAC {
		m, err := mac.Parse(s)
		if err != nil {
			return nil, err
		}
		e.MACs = append(e.MACs, m)
	}
	if d.Serial != "" && e.Serial == "" {
		return nil, fmt.Errorf("serial number %q tells no machine from another", d.Serial)
	}
	if d.UUID != "" && e.UUID == uuid.Nil {
		return nil, fmt.Errorf("UUID %q is none, or tells no machine from another", d.UUID)
	}
	if d.Address != "" {
		a, err := netip.ParseAddr(d.Address)
		if err != nil {
			return nil, err
		}
		if len(e.MACs) == 0 {
			return nil, fmt.Errorf("address %s: only a machine with a MAC address can be given one", a)
		}
		e.Address = a
	}
	if string(e.Config) == "null" {
		e.Config = nil
	}
	return e, nil
}

// add takes a machine in and refuses one that is there twice.
func (s *Set) add(e *Entry) error {
	if err := e.check(); err != nil {
		return err
	}
	keys := e.keys()
	if len(keys) == 0 {
		return fmt.Errorf("nothing tells which machine it is: want mac, serial or uuid")
	}
	for _, k := range keys {
		if s.byKey[k] != nil {
			return fmt.Errorf("%s is there twice", k)
		}
		s.byKey[k] = e
	}
	s.entries = append(s.entries, e)
	return nil
}

func (s *Set) setDefault(e *Entry) error {
	if e.Name != "" || e.Address.IsValid() || len(e.keys()) > 0 {
		return fmt.Errorf("it is for no machine in particular: want cmdline and config only")
	}
	if err := e.check(); err != nil {
		return err
	}
	s.rest = e
	return nil
}

var (
	validName = regexp.MustCompile(`^[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?$`)
	// aToken is what `quantavirt token create` prints.
	aToken = regexp.MustCompile(`qv_[A-Za-z0-9_-]{43}`)
)

func (e *Entry) check() error {
	if e.Name != "" && !validName.MatchString(e.Name) {
		return fmt.Errorf("name %q is not a host name", e.Name)
	}
	if err := checkWords(e.Cmdline); err != nil {
		return err
	}
	if e.Config == nil {
		return nil
	}
	if aToken.Match(e.Config) {
		return fmt.Errorf("config holds an API token in clear, which everybody on the network could read: want its hash")
	}
	_, problems := nodeconfig.Parse(e.Config)
	return errors.Join(problems...)
}

// checkWords refuses what would end the line of a boot script or open an API
// token to everybody.
func checkWords(words string) error {
	if strings.ContainsFunc(words, func(r rune) bool { return r < ' ' || r == 0x7f }) {
		return fmt.Errorf("cmdline %q has a control character", words)
	}
	if aToken.MatchString(words) {
		return fmt.Errorf("cmdline holds an API token in clear, which everybody on the network could read: want its hash")
	}
	return nil
}
