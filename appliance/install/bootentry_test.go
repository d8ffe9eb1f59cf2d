package install

import (
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/disklayout"
	"quantavirt/internal/efivar"
	"quantavirt/internal/hosttool"
	"quantavirt/internal/qverr"
)

// firmware keeps variables, or refuses to.
type firmware struct {
	values map[string][]byte
	err    error
}

func (f *firmware) Names() (names []string, err error) {
	for name := range f.values {
		names = append(names, name)
	}
	return names, f.err
}

func (f *firmware) Get(name string) (uint32, []byte, error) {
	v, ok := f.values[name]
	if !ok {
		return 0, nil, qverr.New(qverr.NoEnt, "%s", name)
	}
	return 7, v, nil
}

func (f *firmware) Set(name string, _ uint32, value []byte) error {
	f.values[name] = value
	return nil
}

func (f *firmware) Delete(name string) error {
	delete(f.values, name)
	return nil
}

// espID is the GUID of a disk's second partition, as sgdisk says.
func espID(t *testing.T, disk string) string {
	t.Helper()
	for line := range strings.Lines(hosttool.Run(t, "sgdisk", "-i", "2", disk)) {
		if id, ok := strings.CutPrefix(line, "Partition unique GUID: "); ok {
			return strings.TrimSpace(id)
		}
	}
	t.Fatal("sgdisk shows no GUID")
	return ""
}

// The firmware boots the disk that was installed last, and no longer the one before.
func TestBootEntry(t *testing.T) {
	m := newMachine(t)
	f := &firmware{values: map[string][]byte{"BootOrder": {9, 0}}}
	m.Firmware = f
	for _, disk := range []string{"serial:SN0", "serial:SN1"} {
		d := m.disk(4*gib, nil)
		end := m.wait(m.Start(Request{Disk: disk}, m.upload(uki("quantavirt")), ""))
		if end.State != spec.TaskStateSucceeded || len(end.Warnings) != 0 {
			t.Fatalf("%+v", end)
		}
		o, err := efivar.ParseLoadOption(f.values["Boot0000"])
		if err != nil {
			t.Fatal(err)
		}
		p, path, ok := o.File()
		parts, err := disklayout.Disk{Size: d.SizeBytes, SectorSize: 512, ESP: disklayout.ESPInstalled, Data: true}.Partitions()
		if err != nil {
			t.Fatal(err)
		}
		if id := espID(t, d.Device); !ok || path != disklayout.PathBoot || p.Number != 2 || int64(p.First) != parts[1].First ||
			int64(p.Size) != parts[1].Last-parts[1].First+1 || !strings.EqualFold(p.ID.String(), id) {
			t.Errorf("%s: %+v %s, the partition is %s", disk, p, path, id)
		}
		if order := f.values["BootOrder"]; string(order) != "\x00\x00\x09\x00" || len(f.values) != 2 {
			t.Errorf("%s: order % x of %d variables", disk, order, len(f.values))
		}
	}
}

// A firmware that takes no entry is a warning of an installation that succeeds.
func TestBootEntryThatFails(t *testing.T) {
	m := newMachine(t)
	m.Firmware = &firmware{err: qverr.New(qverr.IO, "no variables today")}
	m.disk(4*gib, nil)
	end := m.wait(m.Start(Request{Disk: "serial:SN0"}, m.upload(uki("quantavirt")), ""))
	if end.State != spec.TaskStateSucceeded || len(end.Warnings) != 1 || end.Warnings[0].Code != int32(qverr.IO) ||
		!strings.Contains(end.Warnings[0].Message, "no variables today") || end.Warnings[0].Recovery == "" {
		t.Errorf("%+v", end)
	}
	m.disk(gib, nil)
	if end := m.wait(m.Start(Request{Disk: "serial:SN1", DataOnly: true}, Source{}, "")); end.State != spec.TaskStateSucceeded || len(end.Warnings) != 0 {
		t.Errorf("a data volume: %+v", end)
	}
}
