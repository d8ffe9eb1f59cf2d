package main

import (
	"errors"
	"flag"
	"reflect"
	"testing"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

func TestPlacing(t *testing.T) {
	for _, c := range []struct {
		args []string
		want config.Machine
		code qverr.Code // 0: none
	}{
		{nil, config.Machine{}, 0},
		{[]string{"--cpu", "x86-64-v3", "--cpu-features", "+aes,-rdrand", "--topology", "2x3x1", "--pin", "0,1,2+3"},
			config.Machine{CPU: config.CPU{Model: "x86-64-v3", Features: []string{"+aes", "-rdrand"},
				Topology: config.Topology{Sockets: 2, Cores: 3, Threads: 1}, Pinning: [][]int{{0}, {1}, {2, 3}}}}, 0},
		{[]string{"--hugepages", "2M", "--numa-node", "0"}, config.Machine{MemoryFrom: config.MemoryFrom{HugePage: "2M", Node: new(0)}}, 0},
		{[]string{"--topology", "2x3"}, config.Machine{}, qverr.Inval},
		{[]string{"--pin", "0,x"}, config.Machine{}, qverr.Inval},
	} {
		var p placing
		fs := flag.NewFlagSet("test", flag.ContinueOnError)
		p.define(fs)
		if err := fs.Parse(c.args); err != nil {
			t.Fatal(err)
		}
		var m config.Machine
		err := p.apply(&m)
		switch {
		case c.code != 0:
			if !errors.Is(err, c.code) {
				t.Errorf("%v: %v", c.args, err)
			}
		case err != nil || !reflect.DeepEqual(m, c.want):
			t.Errorf("%v: %+v, %v", c.args, m, err)
		}
	}
}
