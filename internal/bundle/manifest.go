package bundle

import (
	"encoding/hex"
	"regexp"
	"time"

	jsonv2 "github.com/go-json-experiment/json"

	"quantavirt/internal/qverr"
)

const (
	// Format is the manifest's format that this package knows.
	Format = 1

	// Roles of files.
	RoleUKI  = "uki"  // unified kernel image of a build
	RoleSBOM = "sbom" // CycloneDX

	maxManifest   = 1 << 20
	maxFiles      = 64
	maxFile       = 4 << 30 // bytes, as on FAT32
	maxSignatures = 16
	maxKeys       = 16
	maxNotes      = 64 << 10
)

// Manifest says what a bundle holds and who may install it.
type Manifest struct {
	Format         int       `json:"format"`
	Version        string    `json:"version"`
	Counter        uint64    `json:"counter"`         // never goes down on a node
	MinimumVersion string    `json:"minimum_version"` // of the system that installs it; "" for any
	CreatedAt      time.Time `json:"created_at"`
	Notes          string    `json:"notes"`
	Files          []File    `json:"files"`
	Keys           KeyChange `json:"keys"`
}

// File is one payload file.
type File struct {
	Name   string `json:"name"`
	Role   string `json:"role"`
	Build  string `json:"build,omitempty"` // of a UKI: virtual or hardware
	Size   int64  `json:"size"`            // bytes
	SHA256 string `json:"sha256"`          // lower-case hexadecimal
}

// KeyChange is what a bundle changes about the trusted keys.
type KeyChange struct {
	Add    [][]byte `json:"add,omitempty"` // public keys
	Remove []string `json:"remove,omitempty"`
}

// Empty says whether the bundle leaves the keys as they are.
func (k KeyChange) Empty() bool { return len(k.Add) == 0 && len(k.Remove) == 0 }

var (
	goodName    = regexp.MustCompile(`^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$`)
	goodVersion = regexp.MustCompile(`^[0-9]+(\.[0-9]+){0,3}([+~-][A-Za-z0-9.+~-]{1,64})?$`)
)

// parseManifest decodes and checks a manifest. Numbers are only looked at after
// the format is known to be ours.
func parseManifest(data []byte) (Manifest, error) {
	var head struct {
		Format int `json:"format"`
	}
	if err := jsonv2.Unmarshal(data, &head); err != nil {
		return Manifest{}, qverr.New(qverr.Inval, "update bundle: the manifest is not JSON: %w", err)
	}
	if head.Format != Format {
		return Manifest{}, qverr.New(qverr.Version, "update bundle: its format is %d, this system knows %d", head.Format, Format).
			WithHint("update to a version in between first")
	}
	var m Manifest
	if err := jsonv2.Unmarshal(data, &m); err != nil {
		return Manifest{}, qverr.New(qverr.Inval, "update bundle: manifest: %w", err)
	}
	return m, m.check()
}

func (m Manifest) check() error {
	bad := func(format string, args ...any) error {
		return qverr.New(qverr.Inval, "update bundle: manifest: "+format, args...)
	}
	switch {
	case !goodVersion.MatchString(m.Version):
		return bad("%.80q is no version", m.Version)
	case m.MinimumVersion != "" && !goodVersion.MatchString(m.MinimumVersion):
		return bad("minimum_version %.80q is no version", m.MinimumVersion)
	case len(m.Notes) > maxNotes:
		return bad("notes of %d bytes, more than %d", len(m.Notes), maxNotes)
	case len(m.Files) == 0 || len(m.Files) > maxFiles:
		return bad("%d files, not 1 to %d", len(m.Files), maxFiles)
	case len(m.Keys.Add) > maxKeys || len(m.Keys.Remove) > maxKeys:
		return bad("more than %d keys", maxKeys)
	}
	names, builds := make(map[string]bool), make(map[string]bool)
	for _, f := range m.Files {
		sum, err := hex.DecodeString(f.SHA256)
		switch {
		case !goodName.MatchString(f.Name) || names[f.Name]:
			return bad("file name %.80q is not good or there twice", f.Name)
		case f.Size < 1 || f.Size > maxFile:
			return bad("%s has %d bytes, not 1 to %d", f.Name, f.Size, int64(maxFile))
		case err != nil || len(sum) != 32 || f.SHA256 != hex.EncodeToString(sum):
			return bad("%s has no SHA-256 in lower-case hexadecimal", f.Name)
		case f.Role == RoleUKI && (f.Build == "" || builds[f.Build]):
			return bad("UKI %s is for no build, or for one that has a UKI already", f.Name)
		}
		names[f.Name] = true
		if f.Role == RoleUKI {
			builds[f.Build] = true
		}
	}
	for _, k := range m.Keys.Add {
		if _, err := ParseKey(k); err != nil {
			return err
		}
	}
	for _, id := range m.Keys.Remove {
		if _, err := ParseKeyID(id); err != nil {
			return err
		}
	}
	return nil
}

// UKI is the unified kernel image for a build.
func (m Manifest) UKI(build string) (File, bool) {
	for _, f := range m.Files {
		if f.Role == RoleUKI && f.Build == build {
			return f, true
		}
	}
	return File{}, false
}

// Size is the number of payload bytes.
func (m Manifest) Size() int64 {
	var n int64
	for _, f := range m.Files {
		n += f.Size
	}
	return n
}

// System is what decides whether a bundle may be installed.
type System struct {
	Version string // that runs
	Build   string // virtual or hardware
	Counter uint64 // the highest that was ever blessed here
}

// Admit says why a system must not install the bundle: QV_ERR_UNSUPPORTED if
// there is nothing for its build, QV_ERR_VERSION if the bundle is older than
// what the system has had, or the system too old for the bundle.
func (m Manifest) Admit(s System) error {
	if _, ok := m.UKI(s.Build); !ok {
		return qverr.New(qverr.Unsupported, "update %s holds nothing for the %s build that runs here", m.Version, s.Build).
			WithHint("take a bundle that was made for this kind of machine").With("build", s.Build)
	}
	if m.Counter < s.Counter {
		return qverr.New(qverr.Version, "update %s has counter %d, this node has had %d: it does not go back behind that", m.Version, m.Counter, s.Counter).
			WithHint("take a newer bundle; back to the system before is: quantavirt system rollback").
			With("counter", m.Counter).With("node_counter", s.Counter)
	}
	if m.MinimumVersion != "" && compareVersions(s.Version, m.MinimumVersion) < 0 {
		return qverr.New(qverr.Version, "update %s wants version %s or later, %s runs", m.Version, m.MinimumVersion, s.Version).
			WithHint("update to %s first", m.MinimumVersion).With("minimum_version", m.MinimumVersion)
	}
	return nil
}
