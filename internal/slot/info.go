package slot

import (
	"encoding/json"
	"time"

	"quantavirt/internal/qverr"
)

// State is how a slot has fared.
type State string

// States of a slot.
const (
	StateTry    State = "try"    // written, perhaps booted, not yet blessed
	StateGood   State = "good"   // blessed
	StateFailed State = "failed" // given up, Reason says why
)

// maxInfo bounds slot.json, in bytes; maxText each text in it.
const (
	maxInfo = 256 << 10
	maxText = 32 << 10
)

// Info is slot.json. The loaders do not read it: what they boot is decided by
// names and the environment block.
type Info struct {
	Sequence  uint32    `json:"sequence"`
	Version   string    `json:"version"`
	Build     string    `json:"build"`
	SHA256    string    `json:"uki_sha256"`
	Counter   uint64    `json:"counter"`
	WrittenAt time.Time `json:"written_at"`
	State     State     `json:"state"`
	Reason    string    `json:"reason,omitempty"`
	Panic     string    `json:"panic,omitempty"` // last words of its kernel
	Trial     *Trial    `json:"trial,omitempty"`
}

// Trial is what a slot has to show before it is blessed. It lies beside the slot
// and not on the data volume, which may be what is missing.
type Trial struct {
	From     uint32        `json:"from"`     // the slot that ran, 0 for none
	BootID   string        `json:"boot_id"`  // of the boot that armed it
	Good     time.Duration `json:"good_ns"`  // how long all must be well
	Limit    time.Duration `json:"limit_ns"` // when that must have been
	Before   Before        `json:"before"`
	ArmedAt  time.Time     `json:"armed_at"`
	Restored bool          `json:"restored"` // the VMs of Before were started again
}

// Before is how the node was when the slot was armed.
type Before struct {
	Data   string   `json:"data,omitempty"` // PARTUUID or device of the data volume
	Uplink bool     `json:"uplink"`
	VMs    []string `json:"vms,omitempty"`   // that ran
	Cards  []string `json:"cards,omitempty"` // PCI addresses of those that were well
}

// ParseInfo reads slot.json.
func ParseInfo(data []byte) (Info, error) {
	if len(data) > maxInfo {
		return Info{}, qverr.New(qverr.Inval, "%s has %d bytes, more than %d", InfoFile, len(data), maxInfo)
	}
	var i Info
	if err := json.Unmarshal(data, &i); err != nil {
		return Info{}, qverr.New(qverr.Inval, "%s: %w", InfoFile, err)
	}
	if i.Sequence < 1 || i.Sequence > MaxSequence {
		return Info{}, qverr.New(qverr.Inval, "%s: sequence number %d", InfoFile, i.Sequence)
	}
	switch i.State {
	case StateTry, StateGood, StateFailed:
		return i, nil
	}
	return Info{}, qverr.New(qverr.Inval, "%s: state %.40q is none of try, good, failed", InfoFile, i.State)
}

// Encode is the text of slot.json. Long texts are cut at their beginning.
func (i Info) Encode() ([]byte, error) {
	i.Reason, i.Panic = tail(i.Reason), tail(i.Panic)
	data, err := json.MarshalIndent(i, "", "  ")
	if err != nil {
		return nil, qverr.New(qverr.Generic, "%s: %w", InfoFile, err)
	}
	return append(data, '\n'), nil
}

func tail(s string) string {
	if len(s) > maxText {
		return s[len(s)-maxText:]
	}
	return s
}
