package ukifile

import (
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"fmt"
	"io"
	"slices"

	"quantavirt/internal/qverr"
)

// PCR is the register that the stub measures an image into.
const PCR = 11

// measured are the sections that the stub measures, in its order, whatever
// their order in the file (systemd-stub(7), and the UKI specification, "PE
// Sections"). .pcrsig is not measured, as it signs the outcome.
var measured = []string{Linux, OSRelease, Cmdline, Initrd, Microcode, Splash, DTB, Uname, SBAT, PCRPKey}

// Measured names the sections that the stub measures, in its order.
func Measured() []string { return slices.Clone(measured) }

// unknown are sections of which the stub picks by the machine's hardware.
var unknown = []string{".dtbauto", ".hwids", ".efifw"}

// Measurement is the expected value of PCR 11 in the SHA-256 bank, and what it
// comes from.
type Measurement struct {
	PCR      int      `json:"pcr"`
	Bank     string   `json:"bank"`
	Value    Digest   `json:"value"`
	Sections []Extend `json:"sections"` // in the order of measurement
}

// Extend is one measured section. The register is extended twice: with the
// digest of the name including a NUL, and with that of the content.
type Extend struct {
	Section string `json:"section"`
	Size    int64  `json:"size"`
	SHA256  Digest `json:"sha256"`
}

// Digest is a SHA-256 digest; in JSON it is hexadecimal.
type Digest [sha256.Size]byte

func (d Digest) String() string { return hex.EncodeToString(d[:]) }

// MarshalText implements encoding.TextMarshaler.
func (d Digest) MarshalText() ([]byte, error) { return []byte(d.String()), nil }

// UnmarshalText implements encoding.TextUnmarshaler.
func (d *Digest) UnmarshalText(text []byte) error {
	if len(text) != 2*len(d) {
		return fmt.Errorf("digest of %d digits, want %d", len(text), 2*len(d))
	}
	_, err := hex.Decode(d[:], text)
	return err
}

// extend is TPM2_PCR_Extend (TPM 2.0 Library, part 3, section 22.2).
func (d *Digest) extend(event Digest) { *d = sha256.Sum256(append(d[:], event[:]...)) }

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
	for _, name := range measured {
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
		e := Extend{Section: name, Size: r.Size(), SHA256: Digest(hash.Sum(nil))}
		m.Value.extend(sha256.Sum256([]byte(name + "\x00")))
		m.Value.extend(e.SHA256)
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
