package vm

import (
	"errors"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/limit"
	"quantavirt/internal/qverr"
)

// TestDiskLimits: the limits of disks change while the VM runs, and nothing else does.
func TestDiskLimits(t *testing.T) {
	r := newRig(t)
	r.create(with(`,"storage":[{"disk":"a","iops":100},{"disk":"b","bandwidth":"1M"}]`))
	patch := func(doc string) (spec.VM, error) {
		return r.Update(t.Context(), "web", tree(t, doc).(map[string]any))
	}
	r.start("web")
	disks := r.vmm.specs[0].Machine.Disks
	ops := func(n uint64) limit.Limits { return limit.Limits{Operations: limit.Rate{PerSecond: n}} }
	megabyte := limit.Limits{Bytes: limit.Rate{PerSecond: 1 << 20}}
	if disks[0].Limits != ops(100) || disks[1].Limits != megabyte {
		t.Errorf("%+v", disks)
	}
	v, err := patch(`{"storage":[{"disk":"a","iops":200},{"disk":"b"}]}`)
	if err != nil || v.Config.Storage[0].Iops != 200 || v.Config.Storage[1].Bandwidth != 0 {
		t.Fatalf("%+v, %v", v, err)
	}
	got := r.vmm.proc(t, "web").limits
	if got["disk0"] != ops(200) || got["disk1"] != (limit.Limits{}) {
		t.Errorf("%+v", got)
	}
	delete(got, "disk0")
	if _, err := patch(`{"storage":[{"disk":"a","iops":200},{"disk":"b","bandwidth":"1M"}]}`); err != nil {
		t.Fatal(err)
	}
	if _, again := got["disk0"]; again || got["disk1"] != megabyte {
		t.Errorf("a limit that did not change was set, or one that did was not: %+v", got)
	}
	for doc, code := range map[string]qverr.Code{
		`{"storage":[{"disk":"a","iops":1},{"disk":"b"}],"description":"x"}`: qverr.State,
		`{"storage":[{"disk":"a","iops":1}]}`:                                qverr.State,
		`{"storage":[{"disk":"a","iops":1,"readonly":true},{"disk":"b"}]}`:   qverr.State,
		`{"storage":[{"disk":"a","iops":0},{"disk":"b"}]}`:                   qverr.Config,
		`{"storage":[{"disk":"a","iops":2000000000000},{"disk":"b"}]}`:       qverr.Config,
	} {
		if _, err := patch(doc); !errors.Is(err, code) {
			t.Errorf("%s: %v", doc, err)
		}
	}
}
