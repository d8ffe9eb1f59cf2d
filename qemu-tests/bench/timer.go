package bench

import (
	"encoding/json"
	"fmt"
	"maps"
	"slices"
	"strings"
)

// Latency is how late a guest's timer of 1 ms was, in microseconds: bounds below which
// the half, 99 and 99.9 % of the periods were (powers of two), and the worst.
type Latency struct {
	P50   uint32 `json:"p50_us"`
	P99   uint32 `json:"p99_us"`
	P999  uint32 `json:"p999_us"`
	Worst uint32 `json:"worst_us"`
	// Late counts by bound, which is twice the least that a period in it was late.
	Late map[uint32]int `json:"late"`
}

// latencyOf takes one monitor's histogram out of the runner's lines; zero for none.
func latencyOf(out, name string) Latency {
	for line := range strings.Lines(out) {
		var m struct {
			Monitor string `json:"timer"`
			Latency
		}
		if json.Unmarshal([]byte(line), &m) == nil && m.Monitor == name {
			m.P50, m.P99, m.P999 = bound(m.Late, 500), bound(m.Late, 990), bound(m.Late, 999)
			return m.Latency
		}
	}
	return Latency{}
}

// bound is the least bound that perMille of the periods stay below.
func bound(late map[uint32]int, perMille int) uint32 {
	total, sum := 0, 0
	for _, n := range late {
		total += n
	}
	for _, us := range slices.Sorted(maps.Keys(late)) {
		if sum += late[us]; sum*1000 >= total*perMille {
			return us
		}
	}
	return 0
}

// showTimers prints both histograms beside each other.
func (r *run) showTimers(out string) error {
	hv, microvm := r.rep.Monitor.TimerHV, r.rep.Monitor.TimerMicroVM
	if len(hv.Late) == 0 || len(microvm.Late) == 0 {
		return fmt.Errorf("the timers could not be measured: %s", out)
	}
	for _, l := range []struct {
		name string
		Latency
	}{{"hv", hv}, {"microvm", microvm}} {
		fmt.Fprintf(r.opts.Out, "vmm: timer of 1 ms under load, %-8s half below %d µs, 99 %% below %d µs, 99.9 %% below %d µs, worst %d µs late\n",
			l.name+":", l.P50, l.P99, l.P999, l.Worst)
	}
	bounds := slices.Sorted(maps.Keys(hv.Late))
	for us := range microvm.Late {
		if hv.Late[us] == 0 {
			bounds = append(bounds, us)
		}
	}
	slices.Sort(bounds)
	for _, us := range bounds {
		fmt.Fprintf(r.opts.Out, "vmm:   below %8d µs %6d, microvm %6d\n", us, hv.Late[us], microvm.Late[us])
	}
	return nil
}
