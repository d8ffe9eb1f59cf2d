package bench

import (
	"strings"
	"testing"

	"quantavirt/qemu-tests/bench/figure"
)

func TestCompare(t *testing.T) {
	const out = "noise\n" + `{"monitor":"hv","figure":"start to first instruction","unit":"ms","value":300}
{"monitor":"microvm","figure":"start to first instruction","unit":"ms","value":1000}
{"monitor":"hv","figure":"start to first instruction","unit":"ms","value":100}
{"monitor":"hv","figure":"start to first instruction","unit":"ms","value":150}
{"monitor":"hv","figure":"memory beyond guest RAM","unit":"MiB","value":6}
{"monitor":"q35","figure":"start to init, SeaBIOS and GRUB","unit":"ms","value":6}
{"monitor":"hv","figure":"reads","unit":"/s","value":100,"exits":2.5}
{"monitor":"microvm","figure":"reads","unit":"/s","value":50,"exits":3}
{"monitor":"q35","figure":"reads","unit":"/s","value":200}
{"timer":"hv"}
`
	list := compare(out)
	if len(list) != 4 {
		t.Fatalf("%+v", list)
	}
	for i, c := range []struct {
		peer    string
		ratio   float64
		verdict string
		text    string
	}{
		{figure.MicroVM, 0.15, "aim: 0.2 of microvm", "hv 150.0 ms  microvm 1000.0 ms (ratio 0.15)"},
		{figure.MicroVM, 0, "aim: 5 MiB, missed", "hv 6.0 MiB  aim"},
		{figure.Q35, 0, "", "q35 6.0 ms"},
		{figure.MicroVM, 2, "aim: 1.0, missed", "hv 100 /s [2.50 exits]  microvm 50 /s (ratio 2.00) [3.00 exits]  q35 200 /s (ratio 0.50)"},
	} {
		got := list[i]
		if list[i].Ratio(c.peer) != c.ratio || got.verdict() != c.verdict || !strings.Contains(got.String(), c.text) {
			t.Errorf("%s: %v, %q, %q", got.Name, got.Ratio(c.peer), got.verdict(), got)
		}
	}
}
