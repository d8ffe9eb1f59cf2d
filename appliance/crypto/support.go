package crypto

import (
	"context"
	"errors"

	"quantavirt/appliance/api/spec"
	"quantavirt/pqc"
	"quantavirt/quac100"
)

// Diagnostics is what a support bundle has of the cryptography: what is known, without a
// test or an operation.
type Diagnostics struct {
	Provider pqc.Status               `json:"provider"`
	Problem  spec.Problem             `json:"problem,omitzero"` // why no card serves
	Cards    []spec.Card              `json:"cards"`
	Stats    map[string]quac100.Stats `json:"stats"` // of the cards' drivers, by address
	QRNG     spec.QRNG                `json:"qrng"`
}

// Diagnostics asks cards and drivers, once it is known what serves.
func (s *Service) Diagnostics(ctx context.Context) (Diagnostics, error) {
	p, err := s.serving(ctx)
	if err != nil {
		return Diagnostics{}, err
	}
	out := Diagnostics{Provider: s.status(ctx, p), Cards: s.Overview(ctx), Stats: make(map[string]quac100.Stats)}
	out.Problem = problemOf(out.Provider.CardError)
	var errs []error
	for _, c := range out.Cards {
		if !c.Bound {
			continue
		}
		stats, err := p.CardStats(c.Address)
		if err != nil {
			errs = append(errs, err)
			continue
		}
		out.Stats[c.Address] = stats
	}
	out.QRNG, err = s.QRNG(ctx)
	return out, errors.Join(append(errs, err)...)
}

// KeystoreSeen is what a support bundle has of the keystore. It is not opened for that.
type KeystoreSeen struct {
	Used       bool         `json:"used"` // since the daemon's start; else nothing more is known
	State      string       `json:"state,omitempty"`
	Problem    spec.Problem `json:"problem,omitzero"`
	Generation uint64       `json:"generation,omitempty"`
	Counter    string       `json:"counter,omitempty"`
	OpenedBy   []string     `json:"opened_by,omitempty"`
	Keys       []KeySeen    `json:"keys,omitempty"`
}

// KeySeen is what is told of a key.
type KeySeen struct {
	ID        string `json:"id"`
	Algorithm string `json:"algorithm"`
	State     string `json:"state"`
	Version   int    `json:"version"`
	OnCard    bool   `json:"on_card"`
}

// KeystoreSeen shows how the keystore is.
func (s *Service) KeystoreSeen() KeystoreSeen {
	s.keystoreMu.Lock()
	defer s.keystoreMu.Unlock()
	if s.keystore == nil {
		return KeystoreSeen{}
	}
	st := s.keystore.Status()
	out := KeystoreSeen{
		Used: true, State: string(st.Condition), Problem: problemOf(st.Err), Generation: uint64(st.Generation), Counter: st.Counter, OpenedBy: st.OpenedBy,
	}
	keys, _ := s.keystore.List() // its state says why there are none
	for _, k := range keys {
		k := shown(k)
		out.Keys = append(out.Keys, KeySeen{ID: k.ID, Algorithm: k.Algorithm, State: string(k.State), Version: k.Version, OnCard: k.Card != ""})
	}
	return out
}
