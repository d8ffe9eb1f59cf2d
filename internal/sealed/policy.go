package sealed

import (
	"crypto/rand"
	"encoding/base64"
	"maps"
	"regexp"
	"strings"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
)

// pcrSystem is the register that the stub measures the unified kernel image into.
const pcrSystem = 11

// meanings of the registers, by the UAPI Group's "Linux TPM PCR Registry" and the
// PC Client Platform Firmware Profile Specification, section 3.3.4.
var meanings = map[int]string{
	0: "the firmware", 1: "the firmware's settings", 2: "firmware of cards", 3: "settings of cards", 4: "the boot loader",
	5: "partitions and settings of the boot loader", 6: "the machine's maker", 7: "Secure Boot's state and keys",
	8: "GRUB's commands", 9: "what GRUB or the kernel's own loader read", tpm.PCRIMA: "the kernel's own measurements",
	pcrSystem: "the system and its command line", 12: "what was added to the command line", 13: "extensions of the system", 14: "the boot loader shim",
}

// Meaning says what is measured into a register.
func Meaning(pcr int) string {
	if m, ok := meanings[pcr]; ok {
		return m
	}
	return "nothing of a boot"
}

// Registers are those that a volume is sealed to.
var Registers = []int{7, pcrSystem, 12, 13}

// Policy is one kind of boot.
type Policy struct {
	For    string     `json:"for"` // in words
	Values tpm.Values `json:"values"`
}

// Current is the policy of this boot. QV_ERR_STATE: no unified kernel image was
// measured.
func Current(d *tpm.Device) (Policy, error) {
	v, err := d.Read(Registers...)
	if err != nil {
		return Policy{}, err
	}
	if v[pcrSystem] == (digest.SHA256{}) {
		return Policy{}, qverr.New(qverr.State, "PCR %d is empty: this boot was not measured", pcrSystem).
			WithHint("boot the unified kernel image by UEFI: its stub measures it")
	}
	return Policy{For: "this boot", Values: v}, nil
}

// Predict is the policy of a boot of another system by the same firmware and
// settings. pcr11 is what ukifile's Measure returns.
func (p Policy) Predict(pcr11 digest.SHA256, name string) Policy {
	v := maps.Clone(p.Values)
	v[pcrSystem] = pcr11
	return Policy{For: name, Values: v}
}

// Distinct leaves out policies with the values of one before, and those beyond
// what a volume can be sealed for.
func Distinct(policies []Policy) []Policy {
	var out []Policy
	seen := make(map[digest.SHA256]bool)
	for _, p := range policies {
		id := p.Values.Policy()
		if !seen[id] && len(out) < maxSeals {
			seen[id] = true
			out = append(out, p)
		}
	}
	return out
}

// newSecret is what the TPM seals: text, so that it can be typed if need be.
func newSecret() []byte {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	return base64.RawURLEncoding.AppendEncode(nil, raw[:])
}

// modhex are digits that are in the same place on most keyboards.
const modhex = "cbdefghijklnrtuv"

// NewRecoveryKey makes a recovery key: 256 random bits, in eight groups of eight
// digits. It is the passphrase of the volume's first key slot.
func NewRecoveryKey() string {
	var raw [32]byte
	_, _ = rand.Read(raw[:]) // never fails
	var s strings.Builder
	for i, b := range raw {
		if i > 0 && i%4 == 0 {
			s.WriteByte('-')
		}
		s.WriteByte(modhex[b>>4])
		s.WriteByte(modhex[b&15])
	}
	return s.String()
}

var recoveryForm = regexp.MustCompile("^[" + modhex + "]{8}(-[" + modhex + "]{8}){7}$")

// ParseRecoveryKey takes a recovery key as somebody typed it. QV_ERR_INVAL: it
// has not the form of one.
func ParseRecoveryKey(text string) ([]byte, error) {
	key := strings.ToLower(strings.Join(strings.Fields(text), ""))
	if !recoveryForm.MatchString(key) {
		return nil, qverr.New(qverr.Inval, "a recovery key has eight groups of eight of the letters %s, with - between them", modhex)
	}
	return []byte(key), nil
}
