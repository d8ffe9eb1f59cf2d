package ukifile

import (
	"crypto/sha256"
	"encoding/json"
	"io"
	"os"
	"slices"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
)

// PCR is the register that the stub measures an image into.
const PCR = 11

// order is the sections that the stub measures, in its order, whatever
// their order in the file (systemd-stub(7), and the UKI specification, "PE
// Sections"). .pcrsig is not measured, as it signs the outcome.
var order = []string{Linux, OSRelease, Cmdline, Initrd, Microcode, Splash, DTB, Uname, SBAT, PCRPKey}

// Measured names the sections that the stub measures, in its order.
func Measured() []string { return slices.Clone(order) }

// unknown are sections of which the stub picks by the machine's hardware.
var unknown = []string{".dtbauto", ".hwids", ".efifw"}

// Measurement is the expected value of PCR 11 in the SHA-256 bank, and what it
// comes from.
type Measurement struct {
	PCR      int           `json:"pcr"`
	Bank     string        `json:"bank"`
	Value    digest.SHA256 `json:"value"`
	Sections []Extend      `json:"sections"` // in the order of measurement
}

// Extend is one measured section. The register is extended twice: with the
// digest of the name including a NUL, and with that of the content.
type Extend struct {
	Section string        `json:"section"`
	Size    int64         `json:"size"`
	SHA256  digest.SHA256 `json:"sha256"`
}

// Measure reads all sections that the stub measures and returns the value that
// it leaves in PCR 11. Nothing else of a boot extends that register here: there
// is no systemd in the image that would add its boot phases.
func (f *File) Measure() (Measurement, error) {
	for _, name := range unknown {
		if _, ok := f.sections[name]; ok {
			return Measurement{}, qverr.New(qverr.Unsupported, "what is measured of section %s depends on the machine", name)
		}
	}
	m := Measurement{PCR: PCR, Bank: "sha256"}
	for _, name := range order {
		if _, ok := f.sections[name]; !ok {
			continue
		}
		r, err := f.Section(name)
		if err != nil {
			return Measurement{}, err
		}
		hash := sha256.New()
		if _, err := io.Copy(hash, r); err != nil {
			return Measurement{}, qverr.New(qverr.IO, "read section %s: %w", name, err)
		}
		e := Extend{Section: name, Size: r.Size(), SHA256: digest.SHA256(hash.Sum(nil))}
		m.Value.Extend(sha256.Sum256([]byte(name + "\x00")))
		m.Value.Extend(e.SHA256)
		m.Sections = append(m.Sections, e)
	}
	return m, nil
}

// WriteJSON writes the measurement as a document of its own.
func (m Measurement) WriteJSON(w io.Writer) error {
	e := json.NewEncoder(w)
	e.SetIndent("", "  ")
	return e.Encode(m)
}

// MeasureFile is Measure of the file at path. Errors carry the code of what the file
// system says, or those of Open.
func MeasureFile(path string) (Measurement, error) {
	f, err := os.Open(path)
	if err != nil {
		return Measurement{}, qverr.New(qverr.CodeOf(err), "%w", err)
	}
	defer func() { _ = f.Close() }()
	info, err := f.Stat()
	if err != nil {
		return Measurement{}, qverr.New(qverr.IO, "%w", err)
	}
	uki, err := Open(f, info.Size())
	if err != nil {
		return Measurement{}, err
	}
	return uki.Measure()
}
