package vm

import (
	"errors"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/limit"
	"quantavirt/internal/qverr"
)

func TestLimits(t *testing.T) {
	r := newRig(t)
	r.create(with(`,"storage":[{"disk":"a","iops":100},{"disk":"b","bandwidth":"1M"}]`))
	patch := func(doc string) (spec.VM, error) { return r.Update("web", tree(t, doc).(map[string]any)) }
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
	if got := r.vmm.limits; got["web/disk0"] != ops(200) || got["web/disk1"] != (limit.Limits{}) {
		t.Errorf("%+v", got)
	}
	delete(r.vmm.limits, "web/disk0")
	if _, err := patch(`{"storage":[{"disk":"a","iops":200},{"disk":"b","bandwidth":"1M"}]}`); err != nil {
		t.Fatal(err)
	}
	if got, again := r.vmm.limits["web/disk0"]; again || r.vmm.limits["web/disk1"] != megabyte {
		t.Errorf("a limit that did not change was set (%+v), or one that did was not", got)
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
	r.vmm.fail = qverr.New(qverr.NoEnt, "the process is gone")
	if _, err := patch(`{"storage":[{"disk":"a","iops":7},{"disk":"b","bandwidth":"1M"}]}`); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("%v", err)
	}
	// What the process did not take is not stored, and the next action may begin.
	if v, err := r.Get("web"); err != nil || v.Config.Storage[0].Iops != 200 {
		t.Errorf("%+v, %v", v.Config.Storage, err)
	}
	if v, err := patch(`{"storage":[{"disk":"a"},{"disk":"b","bandwidth":"1M"}]}`); err != nil || v.Config.Storage[0].Iops != 0 {
		t.Errorf("%+v, %v", v, err)
	}
}
