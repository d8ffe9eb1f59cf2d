// Package archive is the form of a support bundle: a tar archive packed by gzip, which
// is written and read as a stream.
//
// All of it lies in one folder. In that, each part of the bundle is a folder, whose entry
// comes before its files, so that a reader sees how far the node has got. A part that is
// not whole ends with errors.txt. The last file of all is manifest.json, which has the
// size and the SHA-256 of every other one: an archive without it is not whole.
//
// Every file goes through package redact on its way in; there is no way around it.
package archive

import (
	"time"

	"quantavirt/internal/initapi"
)

// Format is that of the archives that this package writes.
const Format = 1

// Names within the folder.
const (
	ManifestName = "manifest.json"
	ErrorsName   = "errors.txt"
)

// Bounds, in bytes.
const (
	// MaxText is how much of a text is taken: its end.
	MaxText = 8 << 20
	// MaxTotal is how much all files have together.
	MaxTotal = 256 << 20

	maxManifest = 16 << 20
)

// Manifest says what is in a bundle.
type Manifest struct {
	Format    int       `json:"format"`
	Version   string    `json:"version"` // of the system that made it
	NodeID    string    `json:"node_id"`
	Hostname  string    `json:"hostname"`
	CreatedAt time.Time `json:"created_at"`
	Redacted  int       `json:"redacted"` // secrets that were taken out
	Parts     []Part    `json:"parts"`
}

// Part is what a manifest says about one part.
type Part struct {
	Name   string            `json:"name"`
	Bytes  int64             `json:"bytes"` // of its files
	TookMS int64             `json:"took_ms"`
	Files  []File            `json:"files"`
	Errors []initapi.Problem `json:"errors"` // of what could not be collected
}

// File is what a manifest says about one file.
type File struct {
	Name     string `json:"name"` // with that of its part
	Bytes    int64  `json:"bytes"`
	SHA256   string `json:"sha256"`
	CutBytes int64  `json:"cut_bytes,omitempty"` // its beginning, which was left out
}
