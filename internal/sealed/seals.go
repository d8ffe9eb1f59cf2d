package sealed

import (
	"errors"
	"fmt"
	"maps"
	"slices"
	"strings"

	"quantavirt/internal/qverr"
	"quantavirt/internal/tpm"
)

// Seal is a secret, sealed for one kind of boot.
type Seal struct {
	Policy
	tpm.Sealed
}

// Seals are one secret, sealed for several kinds of boot.
type Seals []Seal

// errOtherBoot says that a secret is not sealed for the boot of now.
var errOtherBoot = errors.New("not sealed for this boot")

// SealFor seals a secret for kinds of boots, at least one.
func SealFor(d *tpm.Device, secret []byte, policies []Policy) (Seals, error) {
	if len(policies) == 0 || len(policies) > maxSeals {
		return nil, qverr.New(qverr.Inval, "a secret sealed for %d boots, want 1 to %d", len(policies), maxSeals)
	}
	var seals Seals
	for _, p := range policies {
		s, err := d.Seal(secret, p.Values)
		if err != nil {
			return nil, err
		}
		seals = append(seals, Seal{p, s})
	}
	return seals, nil
}

// Unseal has the TPM give back the secret. QV_ERR_PERM: this boot is none of those;
// the text says what differs.
func (s Seals) Unseal(d *tpm.Device) ([]byte, error) {
	now, err := d.Read(Registers...)
	if err != nil {
		return nil, err
	}
	for _, one := range s {
		if one.Sealed.Policy == now.Policy() {
			return d.Unseal(one.Sealed)
		}
	}
	return nil, qverr.New(qverr.Perm, "%w: %s", errOtherBoot, s.differences(now))
}

// Policies are the kinds of boots.
func (s Seals) Policies() []Policy {
	var policies []Policy
	for _, one := range s {
		policies = append(policies, one.Policy)
	}
	return policies
}

// differences compares a boot with the seal that is most like it.
func (s Seals) differences(now tpm.Values) string {
	var least []string
	for _, one := range s {
		var differ []string
		for _, pcr := range slices.Sorted(maps.Keys(one.Values)) {
			if one.Values[pcr] != now[pcr] {
				differ = append(differ, fmt.Sprintf("PCR %d (%s)", pcr, Meaning(pcr)))
			}
		}
		if least == nil || len(differ) < len(least) {
			least = differ
		}
	}
	if len(least) == 0 {
		return "it is sealed for none"
	}
	verb := "differs"
	if len(least) > 1 {
		verb = "differ"
	}
	return strings.Join(least, ", ") + " " + verb
}
