package config_test

import (
	"errors"
	"slices"
	"testing"

	"quantavirt/hv/config"
	"quantavirt/internal/qverr"
)

func TestFirmware(t *testing.T) {
	firmware := func() config.Machine {
		m := machine()
		m.Boot = config.Boot{Firmware: "fw", NetROM: "rom", Order: []string{"b", "n"}}
		return m
	}
	m := firmware()
	if err := m.Validate(); err != nil {
		t.Fatal(err)
	}
	if got := m.Files(); !slices.Equal(got[:2], []string{"fw", "rom"}) {
		t.Errorf("%v", got)
	}
	for _, tc := range []struct {
		name   string
		change func(*config.Machine)
		path   string
	}{
		{"kernel too", func(m *config.Machine) { m.Boot.Kernel = "k" }, "boot.firmware"},
		{"command line", func(m *config.Machine) { m.Boot.Cmdline = "quiet" }, "boot.firmware"},
		{"initrd", func(m *config.Machine) { m.Boot.Initrd = "i" }, "boot.firmware"},
		{"order without firmware", func(m *config.Machine) { m.Boot = config.Boot{Kernel: "k", Order: []string{"a"}} }, "boot.order"},
		{"unknown device", func(m *config.Machine) { m.Boot.Order = []string{"c"} }, "boot.order"},
		{"twice", func(m *config.Machine) { m.Boot.Order = []string{"a", "a"} }, "boot.order"},
		{"disk and NIC of one id", func(m *config.Machine) { m.NICs[0].ID = "b" }, "boot.order"},
	} {
		m := firmware()
		tc.change(&m)
		if err := m.Validate(); !errors.Is(err, qverr.Config) || qverr.From(err).Details["path"] != tc.path {
			t.Errorf("%s: %v", tc.name, err)
		}
	}
}
