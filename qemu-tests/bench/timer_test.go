package bench

import "testing"

func TestLatency(t *testing.T) {
	out := "noise\n" + `{"timer":"microvm","late":{"64":1},"worst_us":40}` + "\n" +
		`{"timer":"hv","late":{"16":500,"64":480,"128":15,"4096":5},"worst_us":3000}` + "\n"
	l := latencyOf(out, "hv")
	if l.P50 != 16 || l.P99 != 128 || l.P999 != 4096 || l.Worst != 3000 {
		t.Errorf("%+v", l)
	}
	if l := latencyOf(out, "microvm"); l.P50 != 64 || l.P999 != 64 {
		t.Errorf("%+v", l)
	}
	if l := latencyOf(out, "q35"); l.Late != nil || bound(nil, 500) != 0 {
		t.Errorf("%+v", l)
	}
}
