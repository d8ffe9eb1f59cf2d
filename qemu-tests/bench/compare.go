package bench

import (
	"encoding/json"
	"fmt"
	"strings"

	"quantavirt/qemu-tests/bench/figure"
)

// Comparison is one figure of all monitors that it was measured of, by their names:
// medians over the runs.
type Comparison struct {
	Name   string             `json:"name"`
	Unit   string             `json:"unit"`
	Values map[string]float64 `json:"values"`
	// Exits of a guest by request, or by 64 KiB of a stream.
	Exits map[string]float64 `json:"exits,omitempty"`
}

// aim is what is promised of a figure: a ratio to a peer's, or a value.
type aim struct {
	peer   string
	ratio  float64
	atMost float64
}

// aims by the names of figures; every rate is to be that of QEMU.
var aims = map[string]aim{
	figure.First:    {peer: figure.MicroVM, ratio: 0.2},
	figure.BzImage:  {peer: figure.MicroVM, ratio: 0.5},
	figure.PVH:      {peer: figure.MicroVM, ratio: 0.4},
	figure.Firmware: {peer: figure.Q35, ratio: 0.6},
	figure.Memory:   {atMost: 5},
}

// compare takes the figures out of the runner's lines, in their order.
func compare(out string) []Comparison {
	type key struct{ name, monitor string }
	values, exits := map[key][]float64{}, map[key][]float64{}
	var list []Comparison
	seen := map[string]bool{}
	for line := range strings.Lines(out) {
		var f figure.Figure
		if json.Unmarshal([]byte(line), &f) != nil || f.Name == "" {
			continue
		}
		k := key{f.Name, f.Monitor}
		values[k] = append(values[k], f.Value)
		if f.Exits != 0 {
			exits[k] = append(exits[k], f.Exits)
		}
		if !seen[f.Name] {
			seen[f.Name] = true
			list = append(list, Comparison{Name: f.Name, Unit: f.Unit, Values: map[string]float64{}, Exits: map[string]float64{}})
		}
	}
	for _, c := range list {
		for _, monitor := range figure.Monitors {
			k := key{c.Name, monitor}
			if len(values[k]) > 0 {
				c.Values[monitor] = median(values[k])
			}
			if len(exits[k]) > 0 {
				c.Exits[monitor] = median(exits[k])
			}
		}
	}
	return list
}

// Ratio is ours to a peer's; 0 where one of them is missing.
func (c Comparison) Ratio(peer string) float64 {
	if c.Values[peer] == 0 {
		return 0
	}
	return c.Values[figure.HV] / c.Values[peer]
}

// verdict says what the aim is and whether it is reached; "" without an aim or a peer.
func (c Comparison) verdict() string {
	reached, text := true, ""
	a, ok := aims[c.Name]
	switch {
	case ok && a.peer != "":
		if c.Ratio(a.peer) == 0 {
			return ""
		}
		reached, text = c.Ratio(a.peer) <= a.ratio, fmt.Sprintf("aim: %.1f of %s", a.ratio, a.peer)
	case ok:
		reached, text = c.Values[figure.HV] <= a.atMost, fmt.Sprintf("aim: %.0f %s", a.atMost, c.Unit)
	default:
		for _, peer := range figure.Monitors[1:] {
			if r := c.Ratio(peer); r != 0 {
				reached, text = reached && r >= 1, "aim: 1.0"
			}
		}
	}
	if !reached {
		text += ", missed"
	}
	return text
}

func (c Comparison) String() string {
	digits := 1
	if c.Unit == figure.PerSecond {
		digits = 0
	}
	text := fmt.Sprintf("%-42s", c.Name)
	for _, monitor := range figure.Monitors {
		v, ok := c.Values[monitor]
		if !ok {
			continue
		}
		text += fmt.Sprintf("  %s %.*f %s", monitor, digits, v, c.Unit)
		if r := c.Ratio(monitor); r != 0 && monitor != figure.HV {
			text += fmt.Sprintf(" (ratio %.2f)", r)
		}
		if e, ok := c.Exits[monitor]; ok {
			text += fmt.Sprintf(" [%.2f exits]", e)
		}
	}
	if v := c.verdict(); v != "" {
		text += "  " + v
	}
	return text
}
