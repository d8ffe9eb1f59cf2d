package keystore

import (
	"slices"
	"strings"
	"time"
	"unicode"
	"unicode/utf8"

	"quantavirt/internal/qverr"
	"quantavirt/pqc"
)

// Usage is one thing that a key may do.
type Usage string

// Usages. Those of public keys are said of a key, and checked where those are used.
const (
	UsageSign        Usage = "sign"
	UsageVerify      Usage = "verify"
	UsageEncapsulate Usage = "encaps"
	UsageDecapsulate Usage = "decaps"
)

// usages are what keys of a family can do.
var usages = map[pqc.Family][]Usage{
	pqc.FamilySignature: {UsageSign, UsageVerify},
	pqc.FamilyKEM:       {UsageEncapsulate, UsageDecapsulate},
}

// State of a key.
type State string

// States.
const (
	Active  State = "active"
	Retired State = "retired" // was rotated: recovers old shared keys, signs nothing
	Expired State = "expired" // does nothing
)

// Origin is where a key comes from.
type Origin string

// Origins.
const (
	Generated Origin = "generated"
	Imported  Origin = "imported"
)

// Key is what is known of a key but for its secret.
type Key struct {
	ID          string        `json:"id"` // a UUID
	Label       string        `json:"label,omitempty"`
	Algorithm   pqc.Algorithm `json:"algorithm"`
	Usage       []Usage       `json:"usage"`
	Extractable bool          `json:"extractable"`
	Origin      Origin        `json:"origin"`
	Card        string        `json:"card,omitempty"` // serial number of the one that keeps it
	Version     int           `json:"version"`        // 1, and one more with each rotation
	CreatedAt   time.Time     `json:"created_at"`
	ExpiresAt   time.Time     `json:"expires_at,omitzero"` // zero: never
	RetiredAt   time.Time     `json:"retired_at,omitzero"`
	Replaces    string        `json:"replaces,omitempty"`
	ReplacedBy  string        `json:"replaced_by,omitempty"`
	Uses        uint64        `json:"uses"`
	UsedAt      time.Time     `json:"used_at,omitzero"`

	Public []byte `json:"-"` // in the encoding of its standard
}

// State is the key's at a time.
func (k Key) State(now time.Time) State {
	switch {
	case !k.ExpiresAt.IsZero() && !now.Before(k.ExpiresAt):
		return Expired
	case !k.RetiredAt.IsZero():
		return Retired
	}
	return Active
}

// may says why a key may not be used.
func (k Key) may(what Usage, now time.Time) error {
	params, err := k.Algorithm.Params()
	if err != nil {
		return err
	}
	if !slices.Contains(usages[params.Family], what) {
		return qverr.New(qverr.PQCAlgorithm, "key %s is for %s, which cannot %s", k.name(), k.Algorithm, verb(what))
	}
	if !slices.Contains(k.Usage, what) {
		return qverr.New(qverr.Perm, "key %s may not %s: it was made for %s", k.name(), verb(what), join(k.Usage)).
			WithHint("what a key may do is chosen when it is made")
	}
	switch k.State(now) {
	case Expired:
		return qverr.New(qverr.PQCKeyExpired, "key %s expired at %s", k.name(), k.ExpiresAt.UTC().Format(time.RFC3339))
	case Retired:
		if what == UsageSign {
			return qverr.New(qverr.State, "key %s is retired and signs no more", k.name()).WithHint("use the key that replaced it: %s", k.ReplacedBy)
		}
	}
	return nil
}

func verb(u Usage) string {
	switch u {
	case UsageEncapsulate:
		return "encapsulate"
	case UsageDecapsulate:
		return "decapsulate"
	}
	return string(u)
}

func join(list []Usage) string {
	var names []string
	for _, u := range list {
		names = append(names, string(u))
	}
	return strings.Join(names, ", ")
}

// name is what people call the key.
func (k *Key) name() string {
	if k.Label != "" {
		return k.Label
	}
	return k.ID
}

// Request is what a new key shall be.
type Request struct {
	Algorithm   pqc.Algorithm
	Label       string // at most MaxLabel bytes; of active keys each has its own
	Usage       []Usage
	ExpiresAt   time.Time // zero: never
	Extractable bool
	OnCard      bool // it is made on the card and never leaves it
}

// MaxLabel is in bytes.
const MaxLabel = 64

// check completes the usage. PQC_ERR_ALGORITHM: no key pairs are of that algorithm.
func (r *Request) check(now time.Time) error {
	params, err := r.Algorithm.Params()
	if err != nil {
		return err
	}
	can := usages[params.Family]
	if can == nil {
		return qverr.New(qverr.PQCAlgorithm, "the keystore keeps no keys of %s", r.Algorithm)
	}
	if len(r.Usage) == 0 {
		r.Usage = can
	}
	for i, u := range r.Usage {
		if !slices.Contains(can, u) {
			return qverr.New(qverr.PQCAlgorithm, "%s cannot %q: its keys can %s", r.Algorithm, u, join(can))
		}
		if slices.Contains(r.Usage[:i], u) {
			return qverr.New(qverr.Inval, "usage %q is there twice", u)
		}
	}
	if !r.ExpiresAt.IsZero() && !r.ExpiresAt.After(now) {
		return qverr.New(qverr.Inval, "the key would have expired at %s", r.ExpiresAt.UTC().Format(time.RFC3339))
	}
	if r.OnCard && r.Extractable {
		return qverr.New(qverr.Inval, "a key on a card cannot be extractable")
	}
	return checkLabel(r.Label)
}

func checkLabel(label string) error {
	if len(label) > MaxLabel || !utf8.ValidString(label) || strings.ContainsFunc(label, func(c rune) bool { return !unicode.IsPrint(c) }) ||
		strings.TrimSpace(label) != label {
		return qverr.New(qverr.Inval, "a label is at most %d bytes of printable text", MaxLabel)
	}
	return nil
}
