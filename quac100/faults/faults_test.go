package faults

import (
	"strings"
	"testing"
)

func TestDecode(t *testing.T) {
	for _, bad := range []string{
		``, `[]`, `{"heat":1}`, `{"hang":"sometimes"}`, `{"ecc":"some"}`, `{"profile":"slow"}`, `{"corrupt":{"what":"colour"}}`,
		`{"dma":{"direction":"sideways"}}`, `{"bias":[{"source":8}]}`, `{"bias":[{"source":0,"part":2}]}`, `{"temperature":"x"}`,
	} {
		var f Faults
		if err := f.Decode(strings.NewReader(bad)); err == nil {
			t.Errorf("%s is accepted", bad)
		}
	}
	var f Faults
	if err := f.Decode(strings.NewReader(`{"clear":true,"hang":"flr","ecc":"corrected","profile":"claims","dma":{"count":-1},"corrupt":{"what":"tag","count":2}}`)); err != nil {
		t.Error(err)
	}
}

func FuzzDecode(f *testing.F) {
	f.Add(`{"bias":[{"source":1,"stuck":true}],"dma":{"direction":"read","count":3}}`)
	f.Fuzz(func(t *testing.T, s string) {
		var x Faults
		_ = x.Decode(strings.NewReader(s)) // must not panic
	})
}
