package vm

import (
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

// TestBalloonTarget: the target changes while the VM runs, and nothing else does.
func TestBalloonTarget(t *testing.T) {
	r := newRig(t)
	r.create(`{"name":"web","memory":{"size":"128M","balloon":true,"balloon_target":"96M"},"boot":{"firmware":"direct","kernel":"k"}}`)
	patch := func(doc string) (spec.VM, error) {
		return r.Update(t.Context(), "web", tree(t, doc).(map[string]any))
	}
	if v, err := patch(`{"memory":{"balloon_target":"64M"}}`); err != nil || v.Config.Memory.BalloonTarget != 64<<20 {
		t.Fatalf("%+v, %v", v.Config.Memory, err)
	}
	r.start("web")
	if b := r.vmm.specs[0].Machine.Balloon; b == nil || b.Target != 64<<20 {
		t.Fatalf("the process got the balloon %+v", b)
	}
	p := r.vmm.proc(t, "web")
	_, err := patch(`{"memory":{"balloon_target":"32M"}}`)
	wantCode(t, err, qverr.Balloon)
	if v, _ := r.Get("web"); v.Config.Memory.BalloonTarget != 64<<20 {
		t.Errorf("a target that the guest does not follow is kept: %+v", v.Config.Memory)
	}
	p.mu.Lock()
	p.driver = true
	p.mu.Unlock()
	for _, c := range []struct {
		doc  string
		want int64
	}{{`{"memory":{"balloon_target":"32M"}}`, 32 << 20}, {`{"memory":{"balloon_target":null}}`, 128 << 20}} {
		if _, err := patch(c.doc); err != nil {
			t.Fatal(err)
		}
		if p.target != c.want {
			t.Errorf("%s: target %d", c.doc, p.target)
		}
	}
	_, err = patch(`{"memory":{"balloon_target":"32M"},"description":"x"}`)
	wantCode(t, err, qverr.State)
	_, err = patch(`{"memory":{"balloon_target":"129M"}}`)
	wantCode(t, err, qverr.Config)
}

// TestBandwidth: a card with a limit is not given to vhost-net, and its limit changes.
func TestBandwidth(t *testing.T) {
	r := newRig(t)
	r.create(with(`,"network":[{},{"bandwidth":"10M"}]`))
	r.start("web")
	nics := r.vmm.specs[0].Machine.NICs
	if nics[1].Limits.Bytes.PerSecond != 10<<20 || nics[1].Vhost != "" || nics[0].Limits.Bytes.PerSecond != 0 {
		t.Fatalf("%+v", nics)
	}
	if _, err := r.Update(t.Context(), "web", tree(t, `{"network":[{},{"bandwidth":"20M"}]}`).(map[string]any)); err != nil {
		t.Fatal(err)
	}
	if l := r.vmm.proc(t, "web").limits; len(l) != 1 || l["nic1"].Bytes.PerSecond != 20<<20 {
		t.Errorf("%+v", l)
	}
	_, err := r.Update(t.Context(), "web", tree(t, `{"network":[{},{"bandwidth":"20M"},{}]}`).(map[string]any))
	wantCode(t, err, qverr.State)
}
