package main

import (
	"context"
	"errors"
	"slices"
	"testing"
	"testing/synctest"
	"time"

	"quantavirt/init/cmdline"
	"quantavirt/init/seq"
	"quantavirt/internal/qverr"
)

// The table holds together, and nothing that an operator can miss stands before
// the daemon.
func TestSequence(t *testing.T) {
	steps := newNode().sequence()
	if err := seq.Check(steps); err != nil {
		t.Fatal(err)
	}
	before := make(map[string]bool)
	var visit func(name string)
	visit = func(name string) {
		i := slices.IndexFunc(steps, func(s seq.Step) bool { return s.Name == name })
		for _, d := range slices.Concat(steps[i].After, steps[i].Needs) {
			if !before[d] {
				before[d] = true
				visit(d)
			}
		}
	}
	visit("daemon")
	for _, want := range []string{"mounts", "control-groups", "socket", "image"} {
		if !before[want] {
			t.Errorf("the daemon does not wait for %s", want)
		}
	}
	for _, other := range []string{"disks", "data-volume", "network", "kvm", "iommu", "cards", "watchdog", "devices", "clock", "rescue"} {
		if before[other] {
			t.Errorf("the daemon waits for %s", other)
		}
	}
	// A driver that hangs the machine does so under the watchdog.
	if i := slices.IndexFunc(steps, func(s seq.Step) bool { return s.Name == "watchdog" }); len(steps[i].After) > 0 || !slices.Equal(steps[i].Needs, []string{"module-index"}) {
		t.Errorf("the watchdog waits for %v, %v", steps[i].After, steps[i].Needs)
	}
	// What the daemon waits for by name is not slowed down by what it does not.
	for _, name := range []string{"data-volume", "network"} {
		visit(name)
	}
	visit("network-cards")
	for _, s := range steps {
		if s.Quiet && before[s.Name] {
			t.Errorf("the daemon's readiness waits for %s, which is quiet", s.Name)
		}
	}
	for _, name := range []string{"modules", "iommu", "cards", "kvm", "devices", "controllers"} {
		if i := slices.IndexFunc(steps, func(s seq.Step) bool { return s.Name == name }); !steps[i].Quiet {
			t.Errorf("%s competes with the daemon", name)
		}
	}
	for _, s := range steps {
		if s.Quiet && s.Name != "head-start" {
			clear(before)
			if visit(s.Name); !before["head-start"] {
				t.Errorf("%s does not leave the API its head start", s.Name)
			}
		}
	}
	i := slices.IndexFunc(steps, func(s seq.Step) bool { return s.Name == "daemon" })
	if len(steps[i].Needs) > 0 {
		t.Errorf("a failure of %v keeps the daemon from being started", steps[i].Needs)
	}
}

// Steps that have ended are shown in order of their start, problems with their
// recovery, and waiting for one ends with it.
func TestBootReport(t *testing.T) {
	n := newNode()
	n.ended = map[string]chan struct{}{"kvm": make(chan struct{})}
	n.add(seq.Result{Name: "kvm", Start: 5 * time.Second, Took: time.Second, Err: qverr.New(qverr.NoVMX, "none")})
	n.add(seq.Result{Name: "root", Start: 3 * time.Second})
	b := n.Boot()
	if len(b.Steps) != 2 || b.Steps[0].Name != "root" || b.Steps[1].Problem == nil || b.Steps[1].Problem.Recovery == "" || b.Steps[1].TookMS != 1000 {
		t.Errorf("%+v", b.Steps)
	}
	if len(n.early) != 1 {
		t.Errorf("for the consoles: %q", n.early)
	}
	ctx, cancel := context.WithTimeout(t.Context(), time.Millisecond)
	defer cancel()
	if err := n.WaitBoot(ctx, "kvm"); !errors.Is(err, qverr.Timeout) {
		t.Errorf("%v", err)
	}
	close(n.ended["kvm"])
	if err := n.WaitBoot(t.Context(), "kvm"); err != nil {
		t.Errorf("%v", err)
	}
	if err := n.WaitBoot(t.Context(), "nonsense"); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("%v", err)
	}
	n.Ready()
	n.Ready()
	if b = n.Boot(); len(b.Steps) != 3 {
		t.Errorf("after two daemons were ready: %+v", b.Steps)
	}
}

func TestHostname(t *testing.T) {
	for line, want := range map[string]struct {
		name string
		code qverr.Code
	}{
		"quantavirt.hostname=node-7": {"node-7", 0},
		"quantavirt.hostname=-bad":   {"", qverr.Config},
		"quantavirt.hostname=a.b":    {"", qverr.Config},
		"quantavirt.hostname=":       {"", qverr.Config},
		"quiet":                      {"", 0},
	} {
		got, err := hostname(cmdline.Parse(line))
		if qverr.CodeOf(err) != want.code || want.name != "" && got != want.name || !goodHostname(got) {
			t.Errorf("%s: %q %v", line, got, err)
		}
	}
}

func TestEndOnlyOnce(t *testing.T) {
	n := newNode()
	n.ending = true
	n.end(reboot, "test") // would reboot the machine of whoever runs this test as root
	phases := n.endPhases()
	if phases[0].Name != "daemon" || phases[0].Limit <= daemonLimit {
		t.Errorf("the daemon, which stops the VMs, comes first and has its time: %+v", phases[0])
	}
	var names []string
	for _, p := range phases {
		names = append(names, p.Name)
	}
	want := []string{"daemon", "virtual machines", "processes", "sync", "data volume", "hardware clock", "consoles"}
	if !slices.Equal(names, want) {
		t.Errorf("order: %v", names)
	}
}

// The rest of the boot waits for the API, and not longer than its head start.
func TestHeadStart(t *testing.T) {
	synctest.Test(t, func(t *testing.T) {
		for _, after := range []time.Duration{headStart / 2, 2 * headStart} {
			n := newNode()
			ready := time.AfterFunc(after, n.Ready)
			begin := time.Now()
			if err := n.awaitAPI(t.Context()); err != nil {
				t.Fatal(err)
			}
			if took := time.Since(begin); took != min(after, headStart) {
				t.Errorf("ready after %v, went on after %v", after, took)
			}
			ready.Stop()
		}
	})
}
