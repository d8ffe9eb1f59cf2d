package attest

import (
	"crypto/sha256"
	"encoding/json"
	"fmt"
	"slices"
	"strings"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/sealed"
	"quantavirt/internal/tpm"
	"quantavirt/internal/ukifile"
)

// maxReport bounds a report, in bytes: an event log in base64 is most of it.
const maxReport = tpm.MaxLog*4/3 + 256<<10

// Parse parses a node's report. QV_ERR_INVAL: it is none.
func Parse(data []byte) (Report, error) {
	var r Report
	if err := json.Unmarshal(data, &r); err != nil {
		return r, qverr.New(qverr.Inval, "not a report of an attestation: %w", err)
	}
	if r.Format != format {
		return r, qverr.New(qverr.Inval, "a report of format %d, want %d", r.Format, format)
	}
	return r, nil
}

// Expected is what the verifier knows from elsewhere.
type Expected struct {
	Nonce    []byte
	Identity string              // fingerprint; "" if the identity is not known yet
	System   ukifile.Measurement // of the unified kernel image
	// Extended are registers of 12 and 13 that may hold something: the host of a virtual
	// machine, say, adds to the command line.
	Extended []int
}

// Check is one thing that was looked at.
type Check struct {
	Name string `json:"name"`
	Good bool   `json:"good"`
	// Skipped is set for what there was nothing to compare with.
	Skipped bool   `json:"skipped,omitempty"`
	Detail  string `json:"detail"`
}

// Verify looks at everything, so that all that is wrong is named at once.
// PQC_ERR_ATTESTATION: something is, and the checks say what.
func (r Report) Verify(want Expected) ([]Check, error) {
	c := &checklist{}
	c.add("identity", r.identityText(want), r.checkIdentity(want))
	c.add("signature", "ML-DSA-87, by that identity", verifySignature(r.Identity, r.statement(), context, r.Signature))
	c.add("nonce", "is the one that was asked with", checkNonce(r.Nonce, want.Nonce))
	c.add("quote", "signed by a TPM's attestation key, about these registers", r.Quote.Verify(quoteNonce(want.Nonce, r.Identity), r.PCRs))
	events, logText, err := r.checkLog()
	c.add("event log", logText, err)
	c.add("system", "PCR 11 is that of the system", r.checkSystem(want.System, events))
	c.add("additions", "nothing was added to the system", r.checkAdditions(want.Extended))
	if bad, _ := c.wrong(); len(bad) > 0 {
		return c.checks, refused("the node did not prove what it booted: %s", strings.Join(bad, "; "))
	}
	return c.checks, nil
}

func (r Report) identityText(want Expected) string {
	text := Fingerprint(r.Identity)
	if want.Identity == "" {
		text += ", which nobody has vouched for: compare it with what the node showed when it was set up"
	}
	return text
}

func (r Report) checkIdentity(want Expected) error {
	if got := Fingerprint(r.Identity); want.Identity != "" && got != want.Identity {
		return refused("it is %s, not %s", got, want.Identity)
	}
	return nil
}

// checkLog replays the event log.
func (r Report) checkLog() ([]tpm.Event, string, error) {
	events, err := tpm.ParseLog(r.EventLog)
	if err != nil {
		return nil, "", refused("%w", err)
	}
	if differ := r.PCRs.Differ(tpm.Replay(events)); len(differ) > 0 {
		return events, "", refused("its events do not lead to the values of %s", registerNames(differ))
	}
	return events, fmt.Sprintf("%d events lead to the registers' values; Secure Boot is %s", len(events), secureBoot(events)), nil
}

func registerNames(pcrs []int) string {
	var names []string
	for _, pcr := range pcrs {
		names = append(names, fmt.Sprintf("PCR %d (%s)", pcr, sealed.Meaning(pcr)))
	}
	return strings.Join(names, ", ")
}

// secureBoot is what the firmware measured of its state.
func secureBoot(events []tpm.Event) string {
	for _, e := range events {
		if e.PCR == 7 {
			switch e.Description() {
			case "SecureBoot = 1":
				return "on"
			case "SecureBoot = 0":
				return "off"
			case "SecureBoot, 0 bytes":
				return "unknown to the firmware"
			}
		}
	}
	return "unknown"
}

// checkSystem compares PCR 11, and names the sections that are others.
func (r Report) checkSystem(want ukifile.Measurement, events []tpm.Event) error {
	if r.PCRs[want.PCR] == want.Value {
		return nil
	}
	if r.PCRs[want.PCR] == (digest.SHA256{}) {
		return refused("PCR %d is empty: no unified kernel image was measured", want.PCR)
	}
	measured := sections(events, want)
	var differ []string
	for _, s := range want.Sections {
		got, ok := measured[s.Section]
		switch {
		case !ok:
			differ = append(differ, s.Section+" is missing")
		case got != s.SHA256:
			differ = append(differ, fmt.Sprintf("%s is %s, not %s", s.Section, got, s.SHA256))
		}
		delete(measured, s.Section)
	}
	for name := range measured {
		differ = append(differ, name+" was added")
	}
	if len(differ) == 0 {
		return refused("PCR %d is %s, not %s", want.PCR, r.PCRs[want.PCR], want.Value)
	}
	slices.Sort(differ)
	return refused("another system or command line was booted: %s", strings.Join(differ, ", "))
}

// sections finds the stub's measurements: of the name of each section, then of
// its content.
func sections(events []tpm.Event, want ukifile.Measurement) map[string]digest.SHA256 {
	names := make(map[digest.SHA256]string)
	for _, name := range ukifile.Measured() {
		names[sha256.Sum256([]byte(name+"\x00"))] = name
	}
	found := make(map[string]digest.SHA256)
	name := ""
	for _, e := range events {
		if e.PCR != want.PCR {
			continue
		}
		if name != "" {
			found[name], name = e.SHA256, ""
			continue
		}
		name = names[e.SHA256]
	}
	return found
}

func (r Report) checkAdditions(allowed []int) error {
	var extended []int
	for _, pcr := range []int{12, 13} {
		if r.PCRs[pcr] != (digest.SHA256{}) && !slices.Contains(allowed, pcr) {
			extended = append(extended, pcr)
		}
	}
	if len(extended) > 0 {
		return refused("something was measured into %s", registerNames(extended))
	}
	return nil
}
