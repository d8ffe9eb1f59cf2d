package bench

import (
	"maps"
	"testing"

	"quantavirt/pqc"
)

func TestParseSpeed(t *testing.T) {
	kem, _ := pqc.MLKEM768.Params()
	aead, _ := pqc.AES256GCM.Params()
	hash, _ := pqc.SHA3_256.Params()
	for _, c := range []struct {
		of   pqc.Params
		out  string
		want map[string]float64
	}{
		{kem, "+DTP:ML-KEM-768:keygen:1\n+R15:1000:ML-KEM-768:0.50\n+DTP:ML-KEM-768:encaps:1\n+R16:24853:ML-KEM-768:1.00\n+DTP:ML-KEM-768:decaps:1\n+R17:300:ML-KEM-768:0.75\n+F9:13:1.0:2.0:3.0\n",
			map[string]float64{"generate": 2000, "encapsulate": 24853, "decapsulate": 400}},
		{aead, "+DT:AES-256-GCM:1:16384\n+R:500:AES-256-GCM:1.0\nsomething else\n+F:22:AES-256-GCM:16384000.00\n", map[string]float64{"seal": 1000}},
		{hash, "+F:22:SHA3-256:8192000.00\n", map[string]float64{"hash": 500}},
	} {
		if got, err := parseSpeed([]byte(c.out), c.of); err != nil || !maps.Equal(got, c.want) {
			t.Errorf("%s: %v, %v; want %v", c.of.Name, got, err, c.want)
		}
	}
	for _, out := range []string{"", "+R16:x:ML-KEM-768:1.00\n", "+DTP:ML-KEM-768:encaps:1\n+R16:x:ML-KEM-768:1.00\n", "+F:22:SHA3-256:x\n"} {
		if got, err := parseSpeed([]byte(out), kem); err == nil {
			t.Errorf("%q gives %v", out, got)
		}
	}
}
