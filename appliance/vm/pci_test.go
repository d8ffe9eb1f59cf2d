package vm

import (
	"context"
	"os"
	"slices"
	"strings"
	"sync"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/hostpci"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
	"quantavirt/internal/vfio"
)

// fakeFunctions writes down what it is asked.
type fakeFunctions struct {
	mu     sync.Mutex
	calls  []string
	refuse error // of the next Reserve
	fail   error // of the next Take
}

func (f *fakeFunctions) note(what, vm string, lent []hostpci.Lent) {
	f.mu.Lock()
	defer f.mu.Unlock()
	for _, l := range lent {
		what += " " + l.Address
	}
	f.calls = append(f.calls, what+" for "+vm)
}

// took returns what was asked since it was asked last.
func (f *fakeFunctions) took() []string {
	f.mu.Lock()
	defer f.mu.Unlock()
	calls := f.calls
	f.calls = nil
	return calls
}

func (f *fakeFunctions) Reserve(_ context.Context, vm string, addresses []string, card bool) ([]hostpci.Lent, error) {
	if err := f.refuse; err != nil {
		f.refuse = nil
		return nil, err
	}
	var lent []hostpci.Lent
	for _, a := range addresses {
		lent = append(lent, hostpci.Lent{Address: a, Driver: "e1000e"})
	}
	if card {
		lent = append(lent, hostpci.Lent{Address: "card", Card: true})
	}
	f.note("reserve", vm, lent)
	return lent, nil
}

func (f *fakeFunctions) Take(_ context.Context, vm string, lent []hostpci.Lent) (*vfio.Assignment, error) {
	f.note("take", vm, lent)
	if err := f.fail; err != nil {
		f.fail = nil
		return nil, err
	}
	container, err := os.Open(os.DevNull)
	a := &vfio.Assignment{Container: container}
	for range lent {
		var file *os.File
		if file, err = os.Open(os.DevNull); err == nil {
			a.Devices = append(a.Devices, file)
		}
	}
	return a, err
}

func (f *fakeFunctions) Adopted(vm string, lent []hostpci.Lent) { f.note("adopted", vm, lent) }
func (f *fakeFunctions) Return(vm string, lent []hostpci.Lent)  { f.note("return", vm, lent) }

const withFunctions = `{"name":"web","memory":{"size":"64M"},"boot":{"firmware":"direct","kernel":"k"},
	"pci":[{"address":"0000:02:00.0"}],"pqc":{"quac100":"passthrough"}}`

func (r *rig) asked(want ...string) {
	r.t.Helper()
	if got := r.pci.took(); !slices.Equal(got, want) {
		r.t.Errorf("asked %q, want %q", got, want)
	}
}

const (
	both      = " 0000:02:00.0 card for web"
	toReserve = "reserve" + both
	toTake    = "take" + both
	toReturn  = "return" + both
)

func TestFunctions(t *testing.T) {
	r := newRig(t)
	r.create(withFunctions)
	r.asked()
	r.start("web")
	r.asked(toReserve, toTake)
	m := r.vmm.specs[0]
	if len(m.Machine.PCI) != 2 || m.Machine.PCI[0].Address != "0000:02:00.0" || m.Files[m.Machine.VFIO] == nil || m.Files[m.Machine.PCI[1].Device] == nil {
		t.Errorf("%+v", m.Machine)
	}
	r.good(r.Stop("web", "", false, 0))
	r.asked(toReturn)
}

func TestFunctionsAfterFailure(t *testing.T) {
	r := newRig(t)
	r.create(withFunctions)
	r.pci.refuse = qverr.New(qverr.NoIOMMU, "no IOMMU")
	_, err := r.Start(t.Context(), "web", "")
	wantCode(t, err, qverr.NoIOMMU)
	r.asked()

	r.pci.fail = qverr.New(qverr.Busy, "held")
	if task := r.done(r.Start(t.Context(), "web", "")); task.Error.Code != qverr.Busy {
		t.Errorf("%+v", task.Error)
	}
	r.asked(toReserve, toTake, toReturn)

	r.vmm.fail = qverr.New(qverr.VMStart, "no")
	r.done(r.Start(t.Context(), "web", ""))
	r.asked(toReserve, toTake, toReturn)

	r.free = 0
	_, err = r.Start(t.Context(), "web", "")
	wantCode(t, err, qverr.NoMem)
	r.asked(toReserve, toReturn)

	r.free = 4 << 30
	r.start("web")
	r.pci.took()
	_ = r.vmm.proc(t, "web").Kill()
	r.state("web", spec.VMStateCRASHED)
	r.asked(toReturn)
}

// A daemon that comes after knows what a VM has; one that finds it dead gives it back.
func TestFunctionsOverRestart(t *testing.T) {
	r := newRig(t)
	r.create(withFunctions)
	r.start("web")
	r.pci.took()
	r.reopen("boot-1")
	r.asked("adopted" + both)
	r.close()
	r.vmm.proc(t, "web").end(vmm.ExitGuestOff, 0)
	r.open("boot-1")
	r.asked(toReturn)
	r.start("web")
	r.pci.took()
	r.close()
	r.vmm.proc(t, "web").end(vmm.ExitGuestOff, 0)
	r.open("boot-2") // its drivers have been theirs since the boot
	r.asked()
	if v, err := r.Get("web"); err != nil || strings.Contains(string(v.State), "RUN") {
		t.Errorf("%+v, %v", v, err)
	}
}
