// Package sbom writes the bill of materials of an image: every Go module and
// every Debian package that it contains, as CycloneDX 1.6 in JSON (ECMA-424).
// The same image has the same bytes: there is no time stamp, and the serial
// number is derived from the image's id.
package sbom

import (
	"cmp"
	"errors"
	"fmt"
	"io"
	"net/url"
	"slices"

	cdx "github.com/CycloneDX/cyclonedx-go"
	"github.com/google/uuid"
)

// Image is what the bill is about.
type Image struct {
	ID, Version, Build, Kernel string
}

// Component is a part of the image.
type Component struct {
	Name     string
	Version  string
	Kind     Kind
	Arch     string // of a Debian package
	SHA256   string // of a Debian package's file, in hexadecimal
	Licences []Licence
	Files    int    // in the image, 0 if it is not known
	Suite    string // of a Debian package
}

// Licence of a component.
type Licence struct {
	Name string // SPDX identifier of a Go module's, Debian's short name of a package's
	Text string // "" to leave it out
}

// Kind of a component.
type Kind int

// Kinds of components.
const (
	GoModule Kind = iota
	DebianPackage
	DebianFirmware // a package of Debian's component non-free-firmware
	Kernel         // of the builder's own
)

// space is that of our serial numbers.
var space = uuid.MustParse("5c6f2a54-7b1d-4c0e-9a86-2f3d1e8b7a90")

// Write writes the bill. Components are sorted.
func Write(w io.Writer, image Image, components []Component) error {
	bom := cdx.NewBOM()
	bom.SerialNumber = uuid.NewSHA1(space, []byte(image.ID)).URN()
	subject := cdx.Component{
		BOMRef: "quantavirt", Type: cdx.ComponentTypeOS, Name: "quantavirt", Version: image.Version,
		Properties: &[]cdx.Property{
			{Name: "quantavirt:build", Value: image.Build},
			{Name: "quantavirt:id", Value: image.ID},
			{Name: "quantavirt:kernel", Value: image.Kernel},
		},
	}
	bom.Metadata = &cdx.Metadata{Component: &subject}
	list := make([]cdx.Component, 0, len(components))
	refs := make([]string, 0, len(components))
	for _, c := range sorted(components) {
		one := c.encode()
		list, refs = append(list, one), append(refs, one.BOMRef)
	}
	bom.Components = &list
	bom.Dependencies = &[]cdx.Dependency{{Ref: subject.BOMRef, Dependencies: &refs}}
	return encode(w, bom)
}

// Extend writes a bill with more components, for something that holds the image
// and them. Those that the bill has already stay as they are.
func Extend(w io.Writer, bill io.Reader, components []Component) error {
	var bom cdx.BOM
	if err := cdx.NewBOMDecoder(bill, cdx.BOMFileFormatJSON).Decode(&bom); err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	if bom.Components == nil || bom.Dependencies == nil || len(*bom.Dependencies) != 1 || (*bom.Dependencies)[0].Dependencies == nil {
		return errors.New("sbom: the bill is not one of an image")
	}
	list, refs := bom.Components, (*bom.Dependencies)[0].Dependencies
	name := bom.SerialNumber
	for _, c := range sorted(components) {
		one := c.encode()
		if !slices.Contains(*refs, one.BOMRef) {
			*list, *refs = append(*list, one), append(*refs, one.BOMRef)
			name += " " + one.BOMRef
		}
	}
	bom.SerialNumber = uuid.NewSHA1(space, []byte(name)).URN()
	return encode(w, &bom)
}

func sorted(components []Component) []Component {
	return slices.SortedFunc(slices.Values(components), func(a, b Component) int {
		return cmp.Or(cmp.Compare(a.Kind, b.Kind), cmp.Compare(a.Name, b.Name), cmp.Compare(a.Version, b.Version))
	})
}

func encode(w io.Writer, bom *cdx.BOM) error {
	out := cdx.NewBOMEncoder(w, cdx.BOMFileFormatJSON)
	out.SetPretty(true)
	if err := out.EncodeVersion(bom, cdx.SpecVersion1_6); err != nil {
		return fmt.Errorf("sbom: %w", err)
	}
	return nil
}

func (c Component) encode() cdx.Component {
	out := cdx.Component{Name: c.Name, Version: c.Version, Type: cdx.ComponentTypeLibrary, PackageURL: c.purl()}
	out.BOMRef = cmp.Or(out.PackageURL, c.Name+"@"+c.Version)
	switch c.Kind {
	case DebianPackage:
		out.Type = cdx.ComponentTypeApplication
	case DebianFirmware:
		out.Type = cdx.ComponentTypeFirmware
	case Kernel:
		out.Type = cdx.ComponentTypeOS
	}
	if c.SHA256 != "" {
		out.Hashes = &[]cdx.Hash{{Algorithm: cdx.HashAlgoSHA256, Value: c.SHA256}}
	}
	if len(c.Licences) > 0 {
		var choices cdx.Licenses
		for _, l := range c.Licences {
			one := cdx.License{Name: l.Name}
			if c.Kind == GoModule {
				one = cdx.License{ID: l.Name}
			}
			if l.Text != "" {
				one.Text = &cdx.AttachedText{ContentType: "text/plain", Content: l.Text}
			}
			choices = append(choices, cdx.LicenseChoice{License: &one})
		}
		out.Licenses = &choices
	}
	return out
}

// purl is the package URL (purl-spec), "" for what has none.
func (c Component) purl() string {
	switch c.Kind {
	case GoModule:
		return "pkg:golang/" + c.Name + "@" + url.PathEscape(c.Version)
	case DebianPackage, DebianFirmware:
		return "pkg:deb/debian/" + c.Name + "@" + url.QueryEscape(c.Version) + "?arch=" + c.Arch + "&distro=" + c.Suite
	}
	return ""
}
