package install

import (
	"bytes"
	"encoding/binary"
	"errors"
	"fmt"
	"log/slog"
	"net/http"
	"net/http/httptest"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"

	"github.com/cloudflare/circl/sign/mldsa/mldsa87"

	"quantavirt/appliance/api/spec"
	"quantavirt/appliance/event"
	"quantavirt/appliance/store"
	"quantavirt/appliance/task"
	"quantavirt/internal/bundle"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/disks"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/initapi"
	"quantavirt/internal/nodeconfig"
	"quantavirt/internal/pefile/petest"
	"quantavirt/internal/qverr"
	"quantavirt/internal/slot"
	"quantavirt/internal/ukifile"
)

const gib = 1 << 30

// uki is a unified kernel image of somebody.
func uki(id string) []byte {
	return petest.Image(512,
		petest.Section{Name: ukifile.OSRelease, Data: "ID=" + id + "\nQUANTAVIRT_VERSION=0.9\nQUANTAVIRT_BUILD=virtual\n"},
		petest.Section{Name: ukifile.Cmdline, Data: "console=ttyS0"},
		petest.Section{Name: ukifile.Initrd, Data: strings.Repeat("initial ", 100_000)}, petest.Section{Name: ukifile.Linux, Data: strings.Repeat("kernel ", 300_000)})
}

// boots is a folder with boot loaders of GRUB's form.
func boots(t *testing.T) string {
	t.Helper()
	boot, core := make([]byte, 512), bytes.Repeat([]byte{0xcc}, 100_000)
	binary.LittleEndian.PutUint64(boot[0x5c:], 1)
	boot[0x66], boot[510], boot[511] = 0xeb, 0x55, 0xaa
	binary.LittleEndian.PutUint16(core[0x1fc:], uint16((len(core)-1)/512))
	binary.LittleEndian.PutUint16(core[0x1fe:], 0x820)
	dir := t.TempDir()
	for name, data := range map[string][]byte{"boot.img": boot, "core.img": core, "systemd-bootx64.efi": []byte("MZ systemd-boot")} {
		if err := os.WriteFile(filepath.Join(dir, name), data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	return dir
}

// machine is a service whose disks are files.
type machine struct {
	*Service
	t     *testing.T
	tasks *task.Manager
	all   []disks.Disk
	boot  initapi.Boot
	key   *mldsa87.PrivateKey // of the builder
}

func newMachine(t *testing.T) *machine {
	t.Helper()
	db, err := store.Open(filepath.Join(t.TempDir(), "state.db"))
	if err != nil {
		t.Fatal(err)
	}
	tasks, err := task.NewManager(db, &event.Bus{}, slog.New(slog.DiscardHandler))
	if err != nil {
		t.Fatal(err)
	}
	t.Cleanup(func() { tasks.Close(t.Context()); _ = db.Close() })
	m := &machine{t: t, tasks: tasks}
	var public *mldsa87.PublicKey
	public, m.key = mldsa87.NewKeyFromSeed(&[mldsa87.SeedSize]byte{1})
	keys := make(bundle.Keys)
	if err := keys.Add(public.Bytes()); err != nil {
		t.Fatal(err)
	}
	var tools Tools
	for name, argv := range map[string]*[]string{"mke2fs": &tools.Mke2fs, "e2fsck": &tools.E2fsck} {
		*argv = []string{hosttool.Path(t, name)}
	}
	m.Service = New(Deps{
		Log: slog.New(slog.DiscardHandler), Tasks: tasks, Spool: t.TempDir(), Tools: tools, Boots: boots(t),
		Disks:  func() ([]disks.Disk, error) { return m.all, nil },
		Boot:   func() initapi.Boot { return m.boot },
		Config: func() []byte { return []byte(`{"hostname": "node7"}`) },
		Free:   func() (int64, error) { return gib, nil },
		Build:  "virtual", Keys: func() (bundle.Keys, error) { return keys, nil },
	})
	return m
}

// disk adds a disk of a size with something at its start.
func (m *machine) disk(size int64, change func(d *disks.Disk)) disks.Disk {
	m.t.Helper()
	f, err := os.Create(filepath.Join(m.t.TempDir(), "disk"))
	if err != nil {
		m.t.Fatal(err)
	}
	defer f.Close()
	if err := f.Truncate(size); err != nil {
		m.t.Fatal(err)
	}
	d := disks.Disk{Device: f.Name(), Serial: fmt.Sprintf("SN%d", len(m.all)), SizeBytes: size, SectorBytes: 512, State: disks.Free}
	if change != nil {
		change(&d)
	}
	m.all = append(m.all, d)
	return d
}

// wait returns a task when it has ended.
func (m *machine) wait(task spec.Task, err error) spec.Task {
	m.t.Helper()
	if err != nil {
		m.t.Fatal(err)
	}
	end, err := m.tasks.Wait(m.t.Context(), task.ID)
	if err != nil {
		m.t.Fatal(err)
	}
	return end
}

func (m *machine) upload(data []byte) Source {
	m.t.Helper()
	src, err := m.Upload(bytes.NewReader(data), int64(len(data)))
	if err != nil {
		m.t.Fatal(err)
	}
	return src
}

// An installed disk is right in the eyes of others' programs.
func TestInstall(t *testing.T) {
	m := newMachine(t)
	d := m.disk(4*gib, nil)
	f, err := os.OpenFile(d.Device, os.O_RDWR, 0)
	if err != nil {
		t.Fatal(err)
	}
	if _, err := f.WriteAt(bytes.Repeat([]byte("old "), 1<<20), 2*gib); err != nil {
		t.Fatal(err)
	}
	_ = f.Close()
	m.all[0].State = disks.Foreign
	end := m.wait(m.Start(Request{Disk: "serial:SN0", WipeSerial: "SN0"}, m.upload(uki("quantavirt")), ""))
	if end.State != spec.TaskStateSucceeded || end.Progress.Phase != phaseDone || end.Progress.Done != end.Progress.Total || end.Progress.Total == 0 {
		t.Fatalf("%+v", end)
	}
	if out := hosttool.Run(t, "sgdisk", "-v", d.Device); !strings.Contains(out, "No problems found") {
		t.Error(out)
	}
	if out := hosttool.Run(t, "sgdisk", "-p", d.Device); !strings.Contains(out, "QV-BIOS") || !strings.Contains(out, "QV-ESP") || !strings.Contains(out, "QV-DATA") {
		t.Error(out)
	}
	parts, err := disklayout.Disk{Size: d.SizeBytes, SectorSize: 512, ESP: disklayout.ESPInstalled, Data: true}.Partitions()
	if err != nil {
		t.Fatal(err)
	}
	esp := cut(t, d.Device, parts[1])
	hosttool.Run(t, "fsck.vfat", "-n", esp)
	for name, want := range map[string]string{
		"quantavirt.json": `{"hostname": "node7"}`, "EFI/Linux/qv-00000001.efi": string(uki("quantavirt")), "EFI/BOOT/BOOTX64.EFI": "MZ systemd-boot",
	} {
		if got := hosttool.Run(t, "mtype", "-i", esp, "::/"+name); got != want {
			t.Errorf("%s has %d bytes, want %d", name, len(got), len(want))
		}
	}
	if got := hosttool.Run(t, "mtype", "-i", esp, "::/qv/00000001/slot.json"); !strings.Contains(got, `"version": "0.9"`) || !strings.Contains(got, `"state": "good"`) {
		t.Error(got)
	}
	data := cut(t, d.Device, parts[2])
	hosttool.Run(t, "e2fsck", "-fn", data)
	if out := hosttool.Run(t, "debugfs", "-R", "stats -h", data); !strings.Contains(out, "QV-DATA") || !strings.Contains(out, "has_journal") || !strings.Contains(out, fmt.Sprint(parts[2].Size/4096)) {
		t.Error(out)
	}
	if left, _ := os.ReadDir(m.Spool); len(left) > 0 {
		t.Errorf("the upload is left: %v", left)
	}
}

// cut copies a partition into a file of its own, leaving holes.
func cut(t *testing.T, disk string, p disklayout.Partition) string {
	t.Helper()
	out := filepath.Join(t.TempDir(), p.Name)
	hosttool.Run(t, "dd", "if="+disk, "of="+out, "bs=1M", fmt.Sprintf("skip=%d", p.Offset>>20), fmt.Sprintf("count=%d", p.Size>>20), "conv=sparse", "status=none")
	if err := os.Truncate(out, p.Size); err != nil {
		t.Fatal(err)
	}
	return out
}

func TestInstallDataOnly(t *testing.T) {
	m := newMachine(t)
	d := m.disk(gib, nil)
	if end := m.wait(m.Start(Request{Disk: "serial:SN0", DataOnly: true}, Source{}, "")); end.State != spec.TaskStateSucceeded {
		t.Fatalf("%+v", end)
	}
	hosttool.Run(t, "e2fsck", "-fn", d.Device)
	f, err := os.Open(d.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if fs, ok, err := disks.Identify(f); err != nil || !ok || fs.Type != "ext4" || fs.Label != disks.LabelData {
		t.Errorf("%+v %v %v", fs, ok, err)
	}
}

// wantBlank fails if a disk was written.
func wantBlank(t *testing.T, d disks.Disk) {
	t.Helper()
	f, err := os.Open(d.Device)
	if err != nil {
		t.Fatal(err)
	}
	defer f.Close()
	if blank, at, err := disks.Blank(f, d.SizeBytes); !blank || err != nil {
		t.Errorf("the disk was written at %d, %v", at, err)
	}
}

func TestInstallFromServer(t *testing.T) {
	image := uki("quantavirt")
	srv := httptest.NewServer(http.HandlerFunc(func(w http.ResponseWriter, r *http.Request) {
		w.Header().Set("Content-Length", fmt.Sprint(len(image)))
		_, _ = w.Write(image)
	}))
	defer srv.Close()
	m := newMachine(t)
	m.disk(4*gib, nil)
	wrong := m.wait(m.Start(Request{Disk: "serial:SN0"}, Source{URL: srv.URL, SHA256: strings.Repeat("0", 64)}, ""))
	if wrong.State != spec.TaskStateFailed || wrong.Error.Code != qverr.Inval {
		t.Errorf("%+v", wrong)
	}
	wantBlank(t, m.all[0])
	if end := m.wait(m.Start(Request{Disk: "serial:SN0"}, Source{URL: srv.URL, SHA256: nodeconfig.Sum(image)}, "")); end.State != spec.TaskStateSucceeded {
		t.Errorf("%+v", end)
	}
}

// What is no system of ours is refused before the disk is touched.
func TestInstallRefusesSystems(t *testing.T) {
	for name, image := range map[string][]byte{"other": uki("debian"), "no UKI": []byte("MZ but nothing else"), "cut": uki("quantavirt")[:1<<20]} {
		m := newMachine(t)
		d := m.disk(4*gib, nil)
		end := m.wait(m.Start(Request{Disk: "serial:SN0"}, m.upload(image), ""))
		if end.State != spec.TaskStateFailed || end.Error.Code != qverr.Inval {
			t.Errorf("%s: %+v", name, end)
		}
		wantBlank(t, d)
	}
	m := newMachine(t)
	if _, err := m.Upload(strings.NewReader("short"), 100); !errors.Is(err, qverr.IO) {
		t.Errorf("a cut upload: %v", err)
	}
	if _, err := m.Upload(nil, MaxSystem+1); !errors.Is(err, qverr.Inval) {
		t.Error(err)
	}
	m.Free = func() (int64, error) { return 99, nil }
	if _, err := m.Upload(strings.NewReader("short"), 100); !errors.Is(err, qverr.NoSpc) {
		t.Error(err)
	}
}

func TestRefusals(t *testing.T) {
	foreign := func(d *disks.Disk) { d.State = disks.Foreign }
	for _, c := range []struct {
		name   string
		size   int64
		change func(d *disks.Disk)
		r      Request
		code   qverr.Code
	}{
		{"blank", 4 * gib, nil, Request{Disk: "serial:SN0"}, 0},
		{"blank, named", 4 * gib, nil, Request{Disk: "serial:SN0", WipeSerial: "SN0"}, 0},
		{"the smallest", 4 * gib, nil, Request{Disk: "smallest"}, 0},
		{"none", 4 * gib, nil, Request{Disk: "serial:SN1"}, qverr.NoEnt},
		{"no selector", 4 * gib, nil, Request{Disk: "vda"}, qverr.Inval},
		{"foreign", 4 * gib, foreign, Request{Disk: "serial:SN0"}, qverr.Exist},
		{"foreign, data only", 4 * gib, foreign, Request{Disk: "serial:SN0", DataOnly: true}, qverr.Exist},
		{"foreign, named", 4 * gib, foreign, Request{Disk: "serial:SN0", WipeSerial: "SN0"}, 0},
		{"foreign, another named", 4 * gib, foreign, Request{Disk: "serial:SN0", WipeSerial: "SN1"}, qverr.Inval},
		{"ours", 4 * gib, func(d *disks.Disk) { d.State = disks.Ours }, Request{Disk: "serial:SN0"}, qverr.Exist},
		{"without a serial number", 4 * gib, func(d *disks.Disk) { d.State, d.Serial = disks.Foreign, "" }, Request{Disk: "smallest", WipeSerial: ""}, qverr.Exist},
		{"by its path", 4 * gib, func(d *disks.Disk) { d.State, d.Serial, d.Path = disks.Foreign, "", "pci-1" }, Request{Disk: "path:pci-1", WipeSerial: "pci-1"}, 0},
		{"unreadable", 4 * gib, func(d *disks.Disk) {
			d.State, d.Problem = disks.Foreign, initapi.NewProblem(qverr.New(qverr.StrIO, "bad sector"))
		}, Request{Disk: "serial:SN0"}, qverr.StrIO},
		{"boot medium", 4 * gib, func(d *disks.Disk) { d.UsedBy = []string{"boot medium"} }, Request{Disk: "serial:SN0", WipeSerial: "SN0"}, qverr.Busy},
		{"boot medium is not the smallest", 4 * gib, func(d *disks.Disk) { d.UsedBy = []string{"boot medium"} }, Request{Disk: "smallest"}, qverr.NoEnt},
		{"mounted", 4 * gib, func(d *disks.Disk) { d.UsedBy = []string{"mounted at /srv"} }, Request{Disk: "serial:SN0", WipeSerial: "SN0"}, qverr.Busy},
		{"read-only", 4 * gib, func(d *disks.Disk) { d.ReadOnly = true }, Request{Disk: "serial:SN0"}, qverr.StrReadonly},
		{"too small", 2*gib + 512<<20, nil, Request{Disk: "serial:SN0"}, qverr.NoSpc},
		{"large enough for data", 512 << 20, nil, Request{Disk: "serial:SN0", DataOnly: true}, 0},
		{"too small for data", 511 << 20, nil, Request{Disk: "serial:SN0", DataOnly: true}, qverr.NoSpc},
		{"odd sectors", 4 * gib, func(d *disks.Disk) { d.SectorBytes = 2048 }, Request{Disk: "serial:SN0"}, qverr.Unsupported},
	} {
		m := newMachine(t)
		m.disk(c.size, c.change)
		_, err := m.Check(c.r)
		if qverr.CodeOf(err) != c.code {
			t.Errorf("%s: %v", c.name, err)
		}
		if c.code == qverr.Exist && qverr.HintOf(err) == "" {
			t.Errorf("%s: no hint", c.name)
		}
	}
	m := newMachine(t)
	m.disk(4*gib, nil)
	if _, err := m.Start(Request{Disk: "serial:SN0"}, Source{}, ""); !errors.Is(err, qverr.NoEnt) {
		t.Errorf("from a boot medium that is none: %v", err)
	}
	m.busy.Lock()
	if _, err := m.Start(Request{Disk: "serial:SN0", DataOnly: true}, Source{}, ""); !errors.Is(err, qverr.Busy) {
		t.Errorf("two at once: %v", err)
	}
}

// Read-back finds a disk that does not keep what it was given.
func TestVerifyFindsLies(t *testing.T) {
	path := filepath.Join(t.TempDir(), "disk")
	if err := os.WriteFile(path, make([]byte, 1<<20), 0o600); err != nil {
		t.Fatal(err)
	}
	var reported int64
	d, err := openTarget(path, func(n int64) { reported += n })
	if err != nil {
		t.Fatal(err)
	}
	defer d.close()
	for _, w := range []struct {
		off  int64
		data string
	}{{0, "zeroes first"}, {4096, "left alone"}, {5, "over"}} {
		if _, err := d.WriteAt([]byte(w.data), w.off); err != nil {
			t.Fatal(err)
		}
	}
	if err := errors.Join(d.flush(), d.verify()); err != nil || d.size() != int64(len("left alone")+len("over")) {
		t.Errorf("%v, %d bytes", err, d.size())
	}
	if _, err := d.f.WriteAt([]byte("X"), 4100); err != nil {
		t.Fatal(err)
	}
	if err := d.verify(); !errors.Is(err, qverr.StrIO) {
		t.Errorf("a flipped byte: %v", err)
	}
	if err := d.f.Truncate(100); err != nil {
		t.Fatal(err)
	}
	if err := d.verify(); !errors.Is(err, qverr.StrIO) {
		t.Errorf("a cut disk: %v", err)
	}
}

func TestRunningSystem(t *testing.T) {
	dir := t.TempDir()
	folder := filepath.Join(dir, "EFI", "Linux")
	if err := os.MkdirAll(folder, 0o700); err != nil {
		t.Fatal(err)
	}
	if _, err := runningSystem(dir, ""); !errors.Is(err, qverr.NoEnt) {
		t.Error(err)
	}
	for _, name := range []string{"qv-00000003+0-1.efi", "qv-00000002.efi", "qv-00000001.efi", "other.efi"} {
		if err := os.WriteFile(filepath.Join(folder, name), nil, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	for booted, want := range map[string]string{"": "qv-00000002.efi", "00000001": "qv-00000001.efi", "00000003": "qv-00000003+0-1.efi", "00000009": "qv-00000002.efi"} {
		if got, err := runningSystem(dir, booted); err != nil || filepath.Base(got.path) != want {
			t.Errorf("%q: %+v %v, want %s", booted, got, err, want)
		}
	}
}

// What the medium says of its slot holds for the installed one.
func TestRunningSystemIsKnown(t *testing.T) {
	dir := t.TempDir()
	write := func(name string, data []byte) {
		t.Helper()
		path := filepath.Join(dir, name)
		if err := os.MkdirAll(filepath.Dir(path), 0o700); err != nil {
			t.Fatal(err)
		}
		if err := os.WriteFile(path, data, 0o600); err != nil {
			t.Fatal(err)
		}
	}
	info, err := (slot.Info{Sequence: 7, Version: "1.4", Counter: 12, SHA256: nodeconfig.Sum(uki("quantavirt")), State: slot.StateGood}).Encode()
	if err != nil {
		t.Fatal(err)
	}
	write("EFI/Linux/qv-00000007.efi", uki("quantavirt"))
	write("qv/00000007/slot.json", info)
	got, err := runningSystem(dir, "00000007")
	if err != nil {
		t.Fatal(err)
	}
	sys, err := openSystem(got)
	if err != nil {
		t.Fatal(err)
	}
	_ = sys.f.Close()
	if sys.info.Version != "1.4" || sys.info.Counter != 12 || sys.info.Sequence != 1 {
		t.Errorf("%+v", sys.info)
	}
	write("EFI/Linux/qv-00000007.efi", append(uki("quantavirt"), 0))
	if _, err := openSystem(got); !errors.Is(err, qverr.IO) {
		t.Errorf("another file than slot.json says: %v", err)
	}
}

func TestClockBeforeFAT(t *testing.T) {
	if got := fatTime(time.Unix(0, 0)); got.Year() != 1980 {
		t.Error(got)
	}
}
