package main

import (
	"bytes"
	"errors"
	"flag"
	"io"
	"os"
	"strings"
	"testing"

	"quantavirt/image/netboot"
	"quantavirt/internal/qverr"
)

func TestParse(t *testing.T) {
	o, err := parse(strings.Fields("--interface eth1 --mode full --range 10.0.0.100-10.0.0.200 --router 10.0.0.1 --dns 10.0.0.2 --dns 10.0.0.3 "+
		"--tree /tree --config /rack.yaml --http-port 8080 --uefi uki --once --known-only --admin 10.9.0.0/24"), io.Discard)
	if err != nil {
		t.Fatal(err)
	}
	if o.Interface != "eth1" || o.Mode != netboot.Full || o.First.String() != "10.0.0.100" || o.Last.String() != "10.0.0.200" ||
		o.Router.String() != "10.0.0.1" || len(o.DNS) != 2 || o.HTTPPort != 8080 || o.UEFI != netboot.UEFIUKI || !o.Once || !o.KnownOnly ||
		o.Cmdline != netboot.DefaultCmdline || len(o.Admins) != 1 || o.Log == nil {
		t.Errorf("%+v", o)
	}
	if o, err = parse([]string{"--interface", "eth1"}, io.Discard); err != nil || o.Mode != netboot.Proxy || o.HTTPPort != 80 {
		t.Errorf("defaults: %+v %v", o, err)
	}
}

func TestUsage(t *testing.T) {
	for _, args := range [][]string{{"--nonsense"}, {"more"}, {"--http-port", "0"}, {"--http-port", "65536"}, {"--range", "10.0.0.1"},
		{"--range", "10.0.0.1-x"}, {"--dns", "x"}, {"--admin", "10.0.0.1"}, {"--address", "x"}} {
		_, err := parse(args, io.Discard)
		if qverr.CodeOf(err) != qverr.Inval || qverr.ExitCode(err) != 2 {
			t.Errorf("%v: %v, exit %d", args, err, qverr.ExitCode(err))
		}
	}
	for args, says := range map[string]string{"--help": "-interface", "--version": "quantavirt-netboot "} {
		var out bytes.Buffer
		if err := run(t.Context(), []string{args}, nil, &out); !errors.Is(err, flag.ErrHelp) || !strings.Contains(out.String(), says) {
			t.Errorf("%s: %v %s", args, err, out.String())
		}
	}
	if err := run(t.Context(), nil, nil, io.Discard); qverr.CodeOf(err) != qverr.Inval {
		t.Errorf("without anything: %v", err)
	}
}

// Every option is in the manual.
func TestManual(t *testing.T) {
	var out bytes.Buffer
	_, _ = parse([]string{"--help"}, &out)
	manual, err := os.ReadFile("../../../docs/netboot.md")
	if err != nil {
		t.Fatal(err)
	}
	for line := range strings.Lines(out.String()) {
		name, ok := strings.CutPrefix(line, "  -")
		if !ok {
			continue
		}
		name, _, _ = strings.Cut(strings.TrimSpace(name), " ")
		if !bytes.Contains(manual, []byte("`--"+name)) {
			t.Errorf("docs/netboot.md does not know --%s", name)
		}
	}
}
