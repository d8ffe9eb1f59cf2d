// Package faults breaks a model of the card while it runs: by a value of type Faults, or by JSON over HTTP on a UNIX
// socket. Nothing of the card's own interface leads here.
//
//	curl --unix-socket control.sock -X PUT http://card/faults -d '{"hang":"soft"}'
//	curl --unix-socket control.sock http://card/health
package faults

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"sync/atomic"
	"time"

	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/vfiouser"
)

// Faults is what the control socket takes. An absent field changes nothing.
type Faults struct {
	Clear          bool     `json:"clear,omitempty"`           // first end every fault that has no end of its own
	SelfTest       *uint32  `json:"self_test,omitempty"`       // mask of self-tests that fail
	Pairwise       *bool    `json:"pairwise,omitempty"`        // the test of new keys in FIPS mode fails
	Crypto         *int     `json:"crypto,omitempty"`          // NTT engine: mismatches that the next operations find
	Temperature    *float64 `json:"temperature,omitempty"`     // of the core, degrees Celsius
	PowerMW        *uint32  `json:"power_mw,omitempty"`        // drawn
	AuxMV          *uint32  `json:"aux_mv,omitempty"`          // auxiliary supply; 0 is a cable that is not plugged in
	Hang           *string  `json:"hang,omitempty"`            // firmware and heartbeat: "none", "soft", "flr", "forever"
	HangCommands   *int     `json:"hang_commands,omitempty"`   // the next n end only by their time-out
	DropInterrupts *int     `json:"drop_interrupts,omitempty"` // the next n messages; -1: all from now on
	Corrupt        *Corrupt `json:"corrupt,omitempty"`         // responses
	DMA            *DMA     `json:"dma,omitempty"`             // accesses that fail
	ECC            *string  `json:"ecc,omitempty"`             // "none", "corrected", "uncorrected"
	Firmware       bool     `json:"firmware,omitempty"`        // the firmware dies
	CutPower       bool     `json:"cut_power,omitempty"`       // while the next firmware image is programmed
	Flash          *bool    `json:"flash,omitempty"`           // programming fails
	Tamper         bool     `json:"tamper,omitempty"`          // the case is opened
	Present        *bool    `json:"present,omitempty"`         // false: the card is pulled out; true: it is back
	Bias           []Bias   `json:"bias,omitempty"`            // of entropy sources
	LatencyMS      *float64 `json:"latency_ms,omitempty"`      // of every command
	Profile        *string  `json:"profile,omitempty"`         // of latency: "fast", "claims"
}

// Bias is what is wrong with an entropy source, 0 to 7.
type Bias struct {
	Source int     `json:"source"`
	Stuck  bool    `json:"stuck"`
	Part   float64 `json:"part"`
	Value  byte    `json:"value"`
}

// Corrupt damages the next responses.
type Corrupt struct {
	What  string `json:"what"` // "tag", "opcode", "length", "twice"
	Count int    `json:"count"`
}

// DMA lets accesses of the card fail.
type DMA struct {
	Direction string `json:"direction,omitempty"` // "read", "write"; both if empty
	AtLeast   int    `json:"at_least,omitempty"`  // only those of so many bytes
	Count     int    `json:"count"`               // the next n; -1: all from now on; 0: no more
}

var (
	hangs    = map[string]model.Hang{"none": model.HangNone, "soft": model.HangSoft, "flr": model.HangFLR, "forever": model.HangForever}
	damages  = map[string]model.Damage{"tag": model.DamageTag, "opcode": model.DamageOpcode, "length": model.DamageLength, "twice": model.DamageTwice}
	eccs     = map[string]model.ECC{"none": model.ECCNone, "corrected": model.ECCCorrected, "uncorrected": model.ECCUncorrected}
	profiles = map[string]func(regs.Opcode) time.Duration{"fast": nil, "claims": claims}
)

// claims is the latency that the maker states for the card: 0.7 µs for a key encapsulation. It states none for the others.
func claims(op regs.Opcode) time.Duration {
	switch op {
	case regs.OpKEMKeygen, regs.OpKEMEncaps, regs.OpKEMDecaps:
		return 700 * time.Nanosecond
	}
	return 0
}

// Decode reads one JSON object; unknown fields and names are errors.
func (f *Faults) Decode(r io.Reader) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return err
	}
	var known error
	check := func(what string, name *string, ok bool) {
		if name != nil && !ok {
			known = errors.Join(known, fmt.Errorf("no %s is called %q", what, *name))
		}
	}
	has := func(name *string, in func(string) bool) bool { return name == nil || in(*name) }
	check("hang", f.Hang, has(f.Hang, func(n string) bool { _, ok := hangs[n]; return ok }))
	check("memory error", f.ECC, has(f.ECC, func(n string) bool { _, ok := eccs[n]; return ok }))
	check("profile", f.Profile, has(f.Profile, func(n string) bool { _, ok := profiles[n]; return ok }))
	if f.Corrupt != nil {
		_, ok := damages[f.Corrupt.What]
		check("damage", &f.Corrupt.What, ok)
	}
	if f.DMA != nil {
		d := f.DMA.Direction
		check("direction", &d, d == "" || d == "read" || d == "write")
	}
	for _, b := range f.Bias {
		if b.Source < 0 || b.Source >= regs.QRNGSources || b.Part < 0 || b.Part > 1 {
			known = errors.Join(known, fmt.Errorf("source %d with part %g: there are %d sources, and parts from 0 to 1", b.Source, b.Part, regs.QRNGSources))
		}
	}
	return known
}

// Apply breaks the card.
func (f *Faults) Apply(c *model.Card) {
	if f.Clear {
		c.ClearFaults()
	}
	set(f.SelfTest, func(v uint32) { c.FailSelfTest(regs.SelfTest(v)) })
	set(f.Pairwise, c.FailPairwise)
	set(f.Crypto, c.FailCrypto)
	set(f.Temperature, func(v float64) { c.SetTemperature(regs.TempCore, int32(v*1000)) })
	set(f.PowerMW, c.SetPower)
	set(f.AuxMV, c.SetAux)
	set(f.Hang, func(v string) { c.Hang(hangs[v]) })
	set(f.HangCommands, c.HangCommands)
	set(f.DropInterrupts, c.DropInterrupts)
	set(f.Corrupt, func(v Corrupt) { c.DamageResponses(damages[v.What], v.Count) })
	set(f.DMA, func(v DMA) { c.FailDMA(v.fault()) })
	set(f.ECC, func(v string) { c.SetECC(eccs[v]) })
	if f.Firmware {
		c.FailFirmware()
	}
	if f.CutPower {
		c.CutPower()
	}
	set(f.Flash, c.FailFlash)
	if f.Tamper {
		c.Tamper()
	}
	set(f.Present, c.SetPresent)
	for _, b := range f.Bias {
		c.BiasSource(b.Source, model.Bias{Stuck: b.Stuck, Part: b.Part, Value: b.Value})
	}
	set(f.LatencyMS, func(v float64) {
		c.SetLatency(func(regs.Opcode) time.Duration { return time.Duration(v * float64(time.Millisecond)) })
	})
	set(f.Profile, func(v string) { c.SetLatency(profiles[v]) })
}

func set[T any](v *T, f func(T)) {
	if v != nil {
		f(*v)
	}
}

// fault is the function that decides about each access; nil for none.
func (d *DMA) fault() func(write bool, iova uint64, n int) error {
	if d.Count == 0 {
		return nil
	}
	var left atomic.Int64
	left.Store(int64(d.Count))
	return func(write bool, _ uint64, n int) error {
		if n < d.AtLeast || d.Direction == "read" && write || d.Direction == "write" && !write {
			return nil
		}
		if d.Count > 0 && left.Add(-1) < 0 {
			return nil
		}
		return model.ErrUnmapped
	}
}

// Serve takes faults on a socket until the function it returns is called.
func Serve(path string, card *model.Card) (end func() error, err error) {
	l, err := vfiouser.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /faults", func(w http.ResponseWriter, r *http.Request) {
		var f Faults
		if err := f.Decode(http.MaxBytesReader(w, r.Body, 1<<16)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.Apply(card)
		w.WriteHeader(http.StatusNoContent)
	})
	mux.HandleFunc("GET /health", func(w http.ResponseWriter, _ *http.Request) {
		w.Header().Set("Content-Type", "application/json")
		_ = json.NewEncoder(w).Encode(card.Health()) // a client that left does not matter
	})
	srv := &http.Server{Handler: mux, ReadTimeout: 10 * time.Second}
	done := make(chan error, 1)
	go func() { done <- srv.Serve(l) }()
	return func() error {
		err := srv.Close()
		if serr := <-done; !errors.Is(serr, http.ErrServerClosed) {
			err = errors.Join(err, serr)
		}
		return err
	}, nil
}
