package tpm

import (
	"bytes"
	"crypto/sha256"
	"encoding/binary"
	"fmt"

	"quantavirt/internal/digest"
	"quantavirt/internal/qverr"
)

// Bounds of a log. Those of real machines have some hundred events in less than
// 256 KiB.
const (
	MaxLog     = 4 << 20
	maxEvents  = 16 << 10
	maxDigests = 16
	maxPCR     = 23
)

// Registers.
const (
	// PCRs is how many there are.
	PCRs = maxPCR + 1
	// PCRIMA is the register that the kernel's IMA extends by itself: no log
	// of the firmware has that.
	PCRIMA = 10
)

const (
	algSHA1   = 0x0004
	algSHA256 = 0x000B
)

// Event is a measurement, as the log has it.
type Event struct {
	PCR    int           `json:"pcr"`
	Type   EventType     `json:"type"`
	SHA256 digest.SHA256 `json:"sha256"`
	Data   []byte        `json:"-"` // what was measured, or a description of it
}

// specID begins the event data of the first event: TCG_EfiSpecIdEvent.
var specID = []byte("Spec ID Event03\x00")

// startupLocality begins those of the event that says what PCR 0 began with.
var startupLocality = []byte("StartupLocality\x00")

// ParseLog reads a log in the crypto-agile format. The first event, which
// describes the log, is left out. QV_ERR_INVAL: it has another form, or no digests
// of SHA-256.
func ParseLog(log []byte) ([]Event, error) {
	if len(log) > MaxLog {
		return nil, badLog("%d bytes, want at most %d", len(log), MaxLog)
	}
	r := reader{rest: log}
	sizes, err := r.header()
	if err != nil {
		return nil, err
	}
	var events []Event
	for len(r.rest) > 0 {
		if len(events) == maxEvents {
			return nil, badLog("more than %d events", maxEvents)
		}
		e, err := r.event(sizes)
		if err != nil {
			return nil, badLog("event %d: %w", len(events)+1, err)
		}
		events = append(events, e)
	}
	return events, nil
}

// reader takes little-endian fields off the front of what is left; what is not
// there makes short true.
type reader struct {
	rest  []byte
	short bool
}

func (r *reader) bytes(n uint64) []byte {
	if n > uint64(len(r.rest)) {
		r.rest, r.short = nil, true
		return nil
	}
	b := r.rest[:n]
	r.rest = r.rest[n:]
	return b
}

func (r *reader) u16() uint16 {
	if b := r.bytes(2); b != nil {
		return binary.LittleEndian.Uint16(b)
	}
	return 0
}

func (r *reader) u32() uint32 {
	if b := r.bytes(4); b != nil {
		return binary.LittleEndian.Uint32(b)
	}
	return 0
}

func (r *reader) u64() uint64 {
	if b := r.bytes(8); b != nil {
		return binary.LittleEndian.Uint64(b)
	}
	return 0
}

// header reads the first event, a TCG_PCClientPCREvent (section 10.2.1), and
// returns the sizes of the digests that each event has.
func (r *reader) header() (map[uint16]uint64, error) {
	r.u32() // PCR
	kind := EventType(r.u32())
	r.bytes(20) // SHA-1, of zeroes
	data := reader{rest: r.bytes(uint64(r.u32()))}
	if r.short || kind != evNoAction || !bytes.Equal(data.bytes(uint64(len(specID))), specID) {
		return nil, badLog("it does not begin with the event %q", specID[:len(specID)-1])
	}
	data.bytes(8) // class of the platform, versions, size of a word
	count := data.u32()
	if count > maxDigests {
		return nil, badLog("%d kinds of digests", count)
	}
	sizes := make(map[uint16]uint64, count)
	for range count {
		alg := data.u16()
		sizes[alg] = uint64(data.u16())
	}
	if data.short || sizes[algSHA256] != sha256.Size {
		return nil, badLog("it has no SHA-256 digests")
	}
	return sizes, nil
}

// event reads a TCG_PCR_EVENT2 (section 10.2.2).
func (r *reader) event(sizes map[uint16]uint64) (Event, error) {
	pcr := r.u32()
	e := Event{PCR: int(pcr), Type: EventType(r.u32())}
	count := r.u32()
	if count > maxDigests {
		return e, fmt.Errorf("%d digests", count)
	}
	found := false
	for range count {
		alg := r.u16()
		size, ok := sizes[alg]
		if !ok {
			return e, fmt.Errorf("a digest of the unknown kind %#x", alg)
		}
		sum := r.bytes(size)
		if alg == algSHA256 && sum != nil {
			e.SHA256, found = digest.SHA256(sum), true
		}
	}
	e.Data = r.bytes(uint64(r.u32()))
	switch {
	case r.short:
		return e, fmt.Errorf("it is cut short")
	case !found:
		return e, fmt.Errorf("no SHA-256 digest")
	case pcr > maxPCR && e.Type != evNoAction:
		return e, fmt.Errorf("register %d", pcr)
	}
	return e, nil
}

func badLog(format string, args ...any) error {
	return qverr.New(qverr.Inval, "not a usable event log: "+format, args...)
}

// Values are those of some registers.
type Values map[int]digest.SHA256

// Replay computes what the events leave in the registers that they extend.
func Replay(events []Event) Values {
	v := make(Values)
	for _, e := range events {
		if e.Type == evNoAction {
			if locality, ok := bytes.CutPrefix(e.Data, startupLocality); ok && e.PCR == 0 && len(locality) == 1 {
				d := v[0]
				d[len(d)-1] = locality[0] // section 3.3.2.1.1: where the CRTM ran
				v[0] = d
			}
			continue
		}
		d := v[e.PCR]
		d.Extend(e.SHA256)
		v[e.PCR] = d
	}
	return v
}

// Differ lists the registers up to 15 whose value is another than the replay's.
// PCRIMA is none of them. Registers from 16 on belong to debuggers and to the dynamic
// root of trust, which this log is not about.
func (v Values) Differ(replay Values) []int {
	var differ []int
	for pcr := range 16 {
		if pcr != PCRIMA && v[pcr] != replay[pcr] {
			differ = append(differ, pcr)
		}
	}
	return differ
}
