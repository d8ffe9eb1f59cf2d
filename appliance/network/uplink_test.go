package network

import (
	"errors"
	"net/netip"
	"os"
	"path/filepath"
	"reflect"
	"testing"
	"testing/synctest"
	"time"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
	"quantavirt/netstack"
	"quantavirt/netstack/uplink"
)

const static = spec.UplinkConfigModeStatic

// testUplink starts the network of a node over a kernel network that is up.
func testUplink(t *testing.T, dir, boot string, options map[string]string) (*Service, *stack) {
	t.Helper()
	k := &stack{}
	k.status.Uplink.State, k.status.Uplink.MTU = uplink.Up, 1500
	s, db := testService(t, k)
	start := time.Now()
	s.control.path = filepath.Join(dir, UplinkFile)
	s.control.clock = clock{boot, func() time.Duration { return time.Hour + time.Since(start) }}
	if err := s.Start(t.Context(), db, options); err != nil {
		t.Fatal(err)
	}
	return s, k
}

var other = spec.UplinkConfig{Mode: static, Address: "192.0.2.9/24", Gateway: "192.0.2.1", DNS: []string{"192.0.2.2"}, MTU: 9000}

func TestUplinkIsReverted(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k := testUplink(t, t.TempDir(), "b1", map[string]string{"ip": "192.0.2.7/24"})
		u, err := s.SetUplink(other, time.Minute)
		if err != nil || u.Pending == nil || u.Pending.SecondsLeft != 60 || !reflect.DeepEqual(u.Pending.Config, other) ||
			u.Config.Address != "192.0.2.7/24" || u.Source != spec.UplinkSourceKernelCommandLine {
			t.Fatalf("%+v, %v", u, err)
		}
		if got := k.state.Uplink.Static.Address.String(); got != "192.0.2.7/24" {
			t.Errorf("changed to %s before the answer could leave", got)
		}
		if _, err := s.ConfirmUplink(); !errors.Is(err, qverr.Again) {
			t.Errorf("confirmed before it was made: %v", err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if got := k.state.Uplink; got.Static.Address.String() != "192.0.2.9/24" || got.MTU != 9000 {
			t.Errorf("the change was not made: %+v", got)
		}
		k.status.Uplink.State = uplink.Down
		if _, err := s.ConfirmUplink(); !errors.Is(err, qverr.Again) {
			t.Errorf("confirmed while the uplink is down: %v", err)
		}
		time.Sleep(time.Minute)
		synctest.Wait()
		if got := k.state.Uplink; got.Static.Address.String() != "192.0.2.7/24" || got.MTU != 1500 {
			t.Errorf("not reverted: %+v", got)
		}
		if _, err := s.ConfirmUplink(); !errors.Is(err, qverr.State) {
			t.Errorf("confirmed after it was reverted: %v", err)
		}
		if u := s.UplinkState(); u.Pending != nil {
			t.Errorf("%+v", u)
		}
	})
}

func TestUplinkIsConfirmed(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		s, k := testUplink(t, dir, "b1", nil)
		if _, err := s.SetUplink(spec.UplinkConfig{Mode: static, Address: "192.0.2.8/24"}, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(30 * time.Second)
		if _, err := s.SetUplink(other, time.Minute); err != nil { // replaces it, with its time
			t.Fatal(err)
		}
		time.Sleep(45 * time.Second)
		synctest.Wait()
		u, err := s.ConfirmUplink()
		if err != nil || u.Pending != nil || u.Source != spec.UplinkSourceAPI || !reflect.DeepEqual(u.Config, other) {
			t.Fatalf("%+v, %v", u, err)
		}
		time.Sleep(time.Hour)
		synctest.Wait()
		if k.state.Uplink.Static.Address.String() != "192.0.2.9/24" {
			t.Errorf("%+v", k.state.Uplink)
		}
		_ = s.Close()
		if cfg, err := ConfirmedUplink(dir, nil); err != nil || cfg.Static.Address.String() != "192.0.2.9/24" {
			t.Errorf("stored: %+v, %v", cfg, err)
		}
		_, k = testUplink(t, dir, "b2", map[string]string{"ip": "192.0.2.7/24"})
		if k.state.Uplink.Static.Address.String() != "192.0.2.9/24" || k.state.Uplink.MTU != 9000 {
			t.Errorf("after a reboot: %+v", k.state.Uplink)
		}
	})
}

// A change that waits lives over a restart of the daemon until its time is over,
// and over no reboot.
func TestUplinkOverRestarts(t *testing.T) {
	for _, c := range []struct {
		name, boot string
		after      time.Duration
		address    string
		reverts    bool
	}{
		{"restart in time", "b1", 20 * time.Second, "192.0.2.9/24", true},
		{"restart too late", "b1", 2 * time.Minute, "192.0.2.7/24", false},
		{"reboot", "b2", 20 * time.Second, "192.0.2.7/24", false},
	} {
		t.Run(c.name, func(t *testing.T) {
			synctest.Test(t, func(t *testing.T) {
				dir := t.TempDir()
				line := map[string]string{"ip": "192.0.2.7/24"}
				s, _ := testUplink(t, dir, "b1", line)
				if _, err := s.SetUplink(other, time.Minute); err != nil {
					t.Fatal(err)
				}
				_ = s.Close()
				start := time.Now()
				time.Sleep(c.after)
				k := &stack{}
				k.status.Uplink.State = uplink.Up
				s, db := testService(t, k)
				s.control.path = filepath.Join(dir, UplinkFile)
				s.control.clock = clock{c.boot, func() time.Duration { return time.Hour + time.Since(start) }}
				if err := s.Start(t.Context(), db, line); err != nil {
					t.Fatal(err)
				}
				if got := k.state.Uplink.Static.Address.String(); got != c.address {
					t.Errorf("%s, want %s", got, c.address)
				}
				if u := s.UplinkState(); (u.Pending != nil) != c.reverts {
					t.Errorf("%+v", u)
				}
				time.Sleep(time.Minute)
				synctest.Wait()
				if got := k.state.Uplink.Static.Address.String(); got != "192.0.2.7/24" {
					t.Errorf("in the end %s", got)
				}
			})
		})
	}
}

// What the node's configuration says is for those too who read the file only; the
// kernel command line overrides it, and the API both.
func TestUplinkOfTheConfiguration(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		dir := t.TempDir()
		k := &stack{}
		k.status.Uplink.State = uplink.Up
		s, db := testService(t, k)
		s.control.path = filepath.Join(dir, UplinkFile)
		s.control.clock.now = func() time.Duration { return time.Hour }
		s.Connect(nil)
		if k.connected.Mode != "" || s.UplinkState().Source != spec.UplinkSourceDefault {
			t.Errorf("%+v", k.connected)
		}
		s.want.Uplink = netstack.UplinkConfig{Mode: uplink.StaticMode, Static: uplink.Static{Address: netip.MustParsePrefix("192.0.2.7/24")}}
		if err := s.Start(t.Context(), db, nil); err != nil {
			t.Fatal(err)
		}
		if u := s.UplinkState(); u.Source != spec.UplinkSourceConfiguration || k.state.Uplink.Mode != uplink.StaticMode {
			t.Errorf("%+v", u)
		}
		for options, want := range map[string]string{"": "192.0.2.7/24", "192.0.2.8/24": "192.0.2.8/24"} {
			if cfg, err := ConfirmedUplink(dir, map[string]string{"ip": options}); err != nil || cfg.Static.Address.String() != want {
				t.Errorf("ip=%s: %+v, %v", options, cfg, err)
			}
		}
		if _, err := s.SetUplink(other, time.Minute); err != nil {
			t.Fatal(err)
		}
		time.Sleep(time.Second)
		synctest.Wait()
		if _, err := s.ConfirmUplink(); err != nil {
			t.Fatal(err)
		}
		_ = s.Close()
		s, _ = testService(t, k)
		s.control.path = filepath.Join(dir, UplinkFile)
		if s.Connect(map[string]string{"ip": "192.0.2.8/24"}); k.connected.Static.Address.String() != "192.0.2.9/24" {
			t.Errorf("%+v", k.connected)
		}
	})
}

func TestUplinkToDefault(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		s, k := testUplink(t, t.TempDir(), "b1", map[string]string{"ip": "192.0.2.7/24"})
		for _, in := range []spec.UplinkConfig{{Mode: spec.UplinkConfigModeDHCP}, {Mode: spec.UplinkConfigModeDefault}} {
			if _, err := s.SetUplink(in, time.Minute); err != nil {
				t.Fatal(err)
			}
			time.Sleep(time.Second)
			synctest.Wait()
			if _, err := s.ConfirmUplink(); err != nil {
				t.Fatal(err)
			}
		}
		if u := s.UplinkState(); u.Source != spec.UplinkSourceKernelCommandLine || k.state.Uplink.Mode != uplink.StaticMode {
			t.Errorf("%+v", u)
		}
	})
}

func TestBadUplink(t *testing.T) {
	s, k := testUplink(t, t.TempDir(), "b1", nil)
	k.status.Networks = []netstack.NetworkStatus{{Network: netstack.DefaultNetwork()}}
	for _, c := range []struct {
		in   spec.UplinkConfig
		path string
	}{
		{spec.UplinkConfig{Mode: static}, "address"},
		{spec.UplinkConfig{Mode: static, Address: "192.0.2.9"}, "address"},
		{spec.UplinkConfig{Mode: static, Address: "192.0.2.255/24"}, "address"},
		{spec.UplinkConfig{Mode: static, Address: "192.168.200.9/16"}, "address"},
		{spec.UplinkConfig{Mode: static, Address: "::1/64"}, "address"},
		{spec.UplinkConfig{Mode: static, Address: "192.0.2.9/24", Gateway: "192.0.2.9"}, "gateway"},
		{spec.UplinkConfig{Mode: static, Address: "192.0.2.9/24", Gateway: "x"}, "gateway"},
		{spec.UplinkConfig{Mode: static, Address: "192.0.2.9/24", DNS: []string{"192.0.2.1", "0.0.0.0"}}, "dns[1]"},
		{spec.UplinkConfig{Mode: static, Address: "192.0.2.9/24", MTU: 70000}, "mtu"},
		{spec.UplinkConfig{Mode: spec.UplinkConfigModeDHCP, Address: "192.0.2.9/24"}, "address"},
		{spec.UplinkConfig{Mode: spec.UplinkConfigModeDHCP, Interface: "no-such-if"}, "interface"},
		{spec.UplinkConfig{Mode: spec.UplinkConfigModeDefault, MTU: 1500}, "mtu"},
	} {
		_, err := s.SetUplink(c.in, time.Minute)
		var e *qverr.Error
		if !errors.As(err, &e) || e.Code != qverr.Config || e.Details["path"] != c.path {
			t.Errorf("%+v: %v, %+v", c.in, err, e)
		}
	}
	if u := s.UplinkState(); u.Pending != nil || u.Source != spec.UplinkSourceDefault {
		t.Errorf("%+v", u)
	}
}

func TestBrokenUplinkFile(t *testing.T) {
	dir := t.TempDir()
	for _, text := range []string{"", "{", `{"version":2}`, `{"version":1,"config":{"mode":"odd"}}`, `{"version":1,"config":{"mode":"static"}}`} {
		if err := os.WriteFile(filepath.Join(dir, UplinkFile), []byte(text), 0o600); err != nil {
			t.Fatal(err)
		}
		cfg, err := ConfirmedUplink(dir, map[string]string{"ip": "192.0.2.7/24"})
		if !errors.Is(err, qverr.Config) || cfg.Static.Address != netip.MustParsePrefix("192.0.2.7/24") {
			t.Errorf("%q: %+v, %v", text, cfg, err)
		}
	}
}

// What is read can be used and is the same when it is written again.
func FuzzUplinkFile(f *testing.F) {
	f.Add([]byte(`{"version":1,"config":{"mode":"static","static":{"address":"192.0.2.7/24"}},"pending":{"boot_id":"b","deadline_boottime_ns":5}}`))
	f.Fuzz(func(t *testing.T, data []byte) {
		r, err := parseUplink(data)
		if err != nil {
			return
		}
		path := filepath.Join(t.TempDir(), UplinkFile)
		if err := writeUplink(path, r); err != nil {
			t.Fatal(err)
		}
		if again, err := readUplink(path); err != nil || !reflect.DeepEqual(again, r) {
			t.Errorf("%+v became %+v, %v", r, again, err)
		}
	})
}
