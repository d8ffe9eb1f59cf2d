package main

import (
	"testing"

	"quantavirt/hv/config"
	"quantavirt/hv/limit"
)

func TestDiskOptions(t *testing.T) {
	for _, tc := range []struct {
		opt  string
		want config.Disk
		ok   bool
	}{
		{"", config.Disk{}, true},
		{"ro", config.Disk{ReadOnly: true}, true},
		{"queues=4", config.Disk{Queues: 4}, true},
		{"iops=500", config.Disk{Limits: limit.Limits{Operations: limit.Rate{PerSecond: 500}}}, true},
		{"bandwidth=20M", config.Disk{Limits: limit.Limits{Bytes: limit.Rate{PerSecond: 20 << 20}}}, true},
		{"queues=many", config.Disk{}, false},
		{"iops=-1", config.Disk{}, false},
		{"bandwidth=", config.Disk{}, false},
		{"colour=red", config.Disk{}, false},
	} {
		var d config.Disk
		if err := setDiskOption(&d, tc.opt); (err == nil) != tc.ok || tc.ok && d != tc.want {
			t.Errorf("%q: %+v, %v", tc.opt, d, err)
		}
	}
}
