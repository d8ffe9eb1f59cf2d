package main

import (
	"encoding/json"
	"errors"
	"fmt"
	"io"
	"net/http"
	"time"

	"quantavirt/quac100/model"
	"quantavirt/quac100/regs"
	"quantavirt/quac100/vfiouser"
)

// faults is what the control socket takes. An absent field changes nothing.
type faults struct {
	SelfTest       *uint32  `json:"self_test,omitempty"`       // mask of self-tests that fail
	Temperature    *float64 `json:"temperature,omitempty"`     // of the core, degrees Celsius
	PowerMW        *uint32  `json:"power_mw,omitempty"`        //
	Hang           *string  `json:"hang,omitempty"`            // "none", "soft", "flr", "forever"
	DropInterrupts *int     `json:"drop_interrupts,omitempty"` // the next n messages
	LatencyMS      *float64 `json:"latency_ms,omitempty"`      // of every command
	DMA            *bool    `json:"dma,omitempty"`             // every access of the card fails
	Firmware       bool     `json:"firmware,omitempty"`        // the firmware dies
	Tamper         bool     `json:"tamper,omitempty"`          //
	Crypto         *int     `json:"crypto,omitempty"`          // mismatches of the fault check
	Bias           []bias   `json:"bias,omitempty"`
}

type bias struct {
	Source int     `json:"source"`
	Stuck  bool    `json:"stuck"`
	Part   float64 `json:"part"`
	Value  byte    `json:"value"`
}

var hangs = map[string]model.Hang{
	"none": model.HangNone, "soft": model.HangSoft, "flr": model.HangFLR, "forever": model.HangForever,
}

func (f *faults) decode(r io.Reader) error {
	d := json.NewDecoder(r)
	d.DisallowUnknownFields()
	if err := d.Decode(f); err != nil {
		return err
	}
	if f.Hang != nil {
		if _, ok := hangs[*f.Hang]; !ok {
			return fmt.Errorf("no hang is called %q", *f.Hang)
		}
	}
	return nil
}

func (f *faults) apply(c *model.Card) {
	if f.SelfTest != nil {
		c.FailSelfTest(regs.SelfTest(*f.SelfTest))
	}
	if f.Temperature != nil {
		c.SetTemperature(regs.TempCore, int32(*f.Temperature*1000))
	}
	if f.PowerMW != nil {
		c.SetPower(*f.PowerMW)
	}
	if f.Hang != nil {
		c.Hang(hangs[*f.Hang])
	}
	if f.DropInterrupts != nil {
		c.DropInterrupts(*f.DropInterrupts)
	}
	if f.LatencyMS != nil {
		c.SetLatency(func(regs.Opcode) time.Duration { return time.Duration(*f.LatencyMS * float64(time.Millisecond)) })
	}
	if f.DMA != nil {
		c.FailDMA(nil)
		if *f.DMA {
			c.FailDMA(func(bool, uint64, int) error { return model.ErrUnmapped })
		}
	}
	if f.Firmware {
		c.FailFirmware()
	}
	if f.Tamper {
		c.Tamper()
	}
	if f.Crypto != nil {
		c.FailCrypto(*f.Crypto)
	}
	for _, b := range f.Bias {
		c.BiasSource(b.Source, model.Bias{Stuck: b.Stuck, Part: b.Part, Value: b.Value})
	}
}

// serveControl takes faults on a socket until the function it returns is called.
func serveControl(path string, card *model.Card) (end func() error, err error) {
	l, err := vfiouser.Listen(path)
	if err != nil {
		return nil, fmt.Errorf("listen on %s: %w", path, err)
	}
	mux := http.NewServeMux()
	mux.HandleFunc("PUT /faults", func(w http.ResponseWriter, r *http.Request) {
		var f faults
		if err := f.decode(http.MaxBytesReader(w, r.Body, 1<<16)); err != nil {
			http.Error(w, err.Error(), http.StatusBadRequest)
			return
		}
		f.apply(card)
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
