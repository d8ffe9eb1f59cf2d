package vm

import (
	"bytes"
	"context"
	"crypto/sha256"
	"encoding/hex"
	"encoding/json"
	"errors"
	"io"
	"os"
	"path/filepath"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/hv/vmm"
	"quantavirt/internal/qverr"
	"quantavirt/pqc/attest"
)

const attested = `,"pqc":{"attestation":true}`

func sum(text string) string {
	d := sha256.Sum256([]byte(text))
	return hex.EncodeToString(d[:])
}

// write puts a file where the rig's storage finds it.
func (r *rig) write(name, text string) {
	r.t.Helper()
	if err := os.WriteFile(filepath.Join(r.dir, name), []byte(text), 0o644); err != nil {
		r.t.Fatal(err)
	}
}

// handed is what the VM process got under a name. It reads before the start is over, as the
// process does.
func (r *rig) handed(name string, then func(*os.File)) {
	r.vmm.spawned = func(s vmm.Spec) {
		if f := s.Files[name]; f == nil {
			r.t.Errorf("the VM process got no %s", name)
		} else {
			then(f)
		}
	}
}

// What is measured is what the VM process gets, and stays so.
func TestMeasured(t *testing.T) {
	r := newRig(t)
	r.write("k", "a kernel")
	r.write("initrd1", "an initrd")
	r.write("ro", strings.Repeat("r", measureBuffer+512))
	r.write("rw", "written")
	v := r.create(`{"name":"web","cpu":{"count":2},"memory":{"size":"128M"},"boot":{"firmware":"direct","kernel":"k","initrd":"initrd1","cmdline":"quiet"},
		"storage":[{"disk":"ro","readonly":true,"serial":"S1"},{"disk":"rw"}]` + attested + `}`)
	var got []byte
	r.handed(fileKernel, func(f *os.File) {
		got, _ = io.ReadAll(io.NewSectionReader(f, 0, 1<<20))
		r.write("k", "another!")
		if _, err := f.WriteAt([]byte("x"), 0); err == nil {
			t.Error("the measured kernel can be written to")
		}
		if err := f.Truncate(0); err == nil {
			t.Error("the measured kernel can be cut")
		}
	})
	r.start("web")
	if string(got) != "a kernel" {
		t.Errorf("the VM process got the kernel %q", got)
	}
	m, err := r.Measured("web")
	if err != nil {
		t.Fatal(err)
	}
	want := attest.Measures{
		Name: "web", UUID: v.UUID, Machine: "qv-1", CPUs: 2, Memory: 128 << 20, Firmware: "direct", Kernel: sum("a kernel"),
		Initrd: sum("an initrd"), Cmdline: "quiet", Card: "none", Disks: []attest.Disk{
			{Name: "ro", Serial: "S1", Size: measureBuffer + 512, ReadOnly: true, Content: sum(strings.Repeat("r", measureBuffer+512))},
			{Name: "rw", Size: 7, Origin: "origin of rw"},
		},
	}
	document, _ := json.Marshal(v.Config)
	if want.Config, err = attest.ConfigDigest(document); err != nil {
		t.Fatal(err)
	}
	if a, b := encoded(t, m.Measures), encoded(t, want); a != b || m.At.IsZero() {
		t.Errorf("measured at %s\n%s, want\n%s", m.At, a, b)
	}
	r.reopen("boot-1")
	again, err := r.Measured("web")
	if err != nil || encoded(t, again) != encoded(t, m) {
		t.Errorf("a new daemon knows %+v: %v", again, err)
	}
	r.good(r.Stop("web", "", true, 0))
	if _, err = r.Measured("web"); !errors.Is(err, qverr.State) || !strings.Contains(err.Error(), "it is STOPPED") {
		t.Errorf("stopped: %v", err)
	}
	r.vmm.spawned = nil
	r.start("web")
	if again, err := r.Measured("web"); err != nil || again.Measures.Kernel != sum("another!") {
		t.Errorf("the second start measured %+v: %v", again, err)
	}
}

func encoded(t *testing.T, v any) string {
	t.Helper()
	data, err := json.Marshal(v)
	if err != nil {
		t.Fatal(err)
	}
	return string(data)
}

func TestMeasuredRefusals(t *testing.T) {
	r := newRig(t)
	r.create(with(""))
	_, err := r.Measured("nobody")
	wantCode(t, err, qverr.NoEnt)
	_, err = r.Measured("web")
	wantCode(t, err, qverr.State)
	r.handed(fileUnpacked, func(*os.File) {})
	r.store.unpacked = true
	r.start("web")
	if _, err = r.Measured("web"); !errors.Is(err, qverr.State) || !strings.Contains(qverr.HintOf(err), "vm set web pqc.attestation=true") {
		t.Errorf("without attestation: %v", err)
	}
	r.good(r.Stop("web", "", true, 0))
	if _, err := r.Update(t.Context(), "web", map[string]any{"pqc": map[string]any{"attestation": true}}); err != nil {
		t.Fatal(err)
	}
	r.vmm.spawned = func(s vmm.Spec) {
		if s.Files[fileUnpacked] != nil || s.Machine.Boot.Unpacked != "" {
			t.Error("the VM process got a kernel that was not measured")
		}
	}
	r.vmm.fail = qverr.New(qverr.Hugepage, "no pages")
	if got := r.done(r.Start(t.Context(), "web", "")); got.State != spec.TaskStateFailed {
		t.Fatalf("%+v", got)
	}
	if r.vms["web"].rec.Measured != nil {
		t.Error("a failed start leaves measures")
	}
	r.start("web")
	if _, err := r.Measured("web"); err != nil {
		t.Errorf("started with attestation: %v", err)
	}
}

// The copy of what is measured needs memory that is there.
func TestMeasureNeedsMemory(t *testing.T) {
	r := newRig(t)
	r.write("k", "")
	if err := os.Truncate(filepath.Join(r.dir, "k"), 512<<20); err != nil {
		t.Fatal(err)
	}
	r.create(with(attested))
	r.free = headroom(8<<30) + vmm.MemoryLimit(128<<20) + 256<<20
	got := r.done(r.Start(t.Context(), "web", ""))
	if got.Error.Code != qverr.NoMem || r.Committed() != 0 {
		t.Errorf("%+v, %d bytes stay taken", got, r.Committed())
	}
}

func TestHashedStops(t *testing.T) {
	ctx, cancel := context.WithCancel(t.Context())
	var out bytes.Buffer
	_, err := hashed(ctx, strings.NewReader(strings.Repeat("x", 3*measureBuffer)), &out, func(int64) { cancel() })
	if err == nil || out.Len() != measureBuffer {
		t.Errorf("%d bytes: %v", out.Len(), err)
	}
}
