package hostpci

import (
	"errors"
	"slices"
	"strings"
	"testing"

	"quantavirt/appliance/api/spec"
	"quantavirt/internal/qverr"
)

func TestList(t *testing.T) {
	_, s := newMachine(t)
	if _, err := s.Reserve(t.Context(), "web", []string{"0000:04:00.0"}, false); err != nil {
		t.Fatal(err)
	}
	all, err := s.List()
	if err != nil {
		t.Fatal(err)
	}
	want := map[string]struct {
		code  qverr.Code
		words string
	}{
		"0000:00:00.0": {qverr.Unsupported, "host bridge"},
		"0000:00:1c.0": {qverr.Unsupported, "PCI bridge"},
		"0000:01:00.0": {qverr.Busy, "in use by the node: network eth0"},
		"0000:02:00.0": {0, ""}, "0000:02:00.1": {0, ""},
		"0000:03:00.0": {qverr.Busy, "in use by the node: disk sda"},
		"0000:04:00.0": {qverr.Busy, "VM web has 0000:04:00.0"},
		"0000:05:00.0": {0, ""}, "0000:06:00.0": {0, ""},
		"0000:07:00.0": {qverr.NoIOMMU, "in no IOMMU group"},
		"0000:08:00.0": {qverr.Unsupported, "ISA bridge"},
		"0000:09:00.0": {qverr.Busy, "network eth1"}, "0000:09:00.1": {qverr.Busy, "network eth1"},
		"0000:08:00.2": {qverr.Busy, "together with 0000:08:00.0 (ISA bridge, driver lpc_ich)"},
	}
	for _, f := range all {
		w := want[f.Address]
		if f.Problem.Code != int32(w.code) || f.Assignable != (w.code == 0) || !strings.Contains(f.Problem.Message, w.words) {
			t.Errorf("%s: %+v", f.Address, f)
		}
		delete(want, f.Address)
	}
	if len(want) != 0 {
		t.Errorf("not listed: %v", want)
	}
	i := slices.IndexFunc(all, func(f spec.SystemPCI) bool { return f.Address == "0000:02:00.1" })
	if f := all[i]; f.ClassName != "audio device" || f.Driver != "snd_hda_intel" || f.IOMMUGroup != 2 || !slices.Equal(f.GroupMembers, []string{"0000:02:00.0"}) {
		t.Errorf("%+v", f)
	}
}

func TestRefusals(t *testing.T) {
	m, s := newMachine(t)
	if _, err := s.Reserve(t.Context(), "first", []string{"0000:05:00.0"}, false); err != nil {
		t.Fatal(err)
	}
	for name, c := range map[string]struct {
		addresses []string
		code      qverr.Code
		words     string
	}{
		"no such function": {[]string{"0000:0a:00.0"}, qverr.NoDev, "no PCI function 0000:0a:00.0"},
		"half a group":     {[]string{"0000:02:00.0"}, qverr.Busy, "together with 0000:02:00.1 (audio device, driver snd_hda_intel): the IOMMU cannot keep them apart"},
		"no IOMMU":         {[]string{"0000:07:00.0"}, qverr.NoIOMMU, "no IOMMU group"},
		"another VM's":     {[]string{"0000:04:00.0", "0000:05:00.0"}, qverr.Busy, "VM first has 0000:05:00.0"},
		"the uplink":       {[]string{"0000:01:00.0"}, qverr.Busy, "network eth0"},
		"the data volume":  {[]string{"0000:03:00.0"}, qverr.Busy, "disk sda"},
	} {
		_, err := s.Reserve(t.Context(), "second", c.addresses, false)
		if !errors.Is(err, c.code) || !strings.Contains(err.Error(), c.words) {
			t.Errorf("%s: %v", name, err)
		}
	}
	if len(s.vms) != 1 || len(m.opened) != 0 {
		t.Errorf("reserved after refusals: %v", s.vms)
	}
}

// A whole group goes and comes back, each function to its driver.
func TestTakeAndReturn(t *testing.T) {
	m, s := newMachine(t)
	lent, err := s.Reserve(t.Context(), "web", []string{"0000:02:00.0", "0000:02:00.1"}, false)
	if err != nil {
		t.Fatal(err)
	}
	if m.driver("0000:02:00.1") != "snd_hda_intel" {
		t.Error("it was taken when it was reserved")
	}
	m.write("home/0000:02:00.0", "vfio-pci") // no driver of the kernel's wants it
	if _, err := s.Take(t.Context(), "web", lent); err != nil {
		t.Fatal(err)
	}
	if m.driver("0000:02:00.0") != "vfio-pci" || m.driver("0000:02:00.1") != "vfio-pci" || len(m.opened) != 1 {
		t.Errorf("bound to %q and %q, opened %v", m.driver("0000:02:00.0"), m.driver("0000:02:00.1"), m.opened)
	}
	s.Return("web", lent)
	if m.driver("0000:02:00.0") != "" || m.driver("0000:02:00.1") != "snd_hda_intel" || len(s.vms) != 0 {
		t.Errorf("afterwards bound to %q and %q, %v", m.driver("0000:02:00.0"), m.driver("0000:02:00.1"), s.vms)
	}
	if m.read("sys/bus/pci/devices/0000:02:00.1/driver_override") != "" {
		t.Error("the override stays")
	}
}

// Cards leave the node's cryptography, and come back to it.
func TestCards(t *testing.T) {
	m, s := newMachine(t)
	var all [][]Lent
	for i, want := range []string{"0000:05:00.0", "0000:06:00.0"} {
		vm := string(rune('a' + i))
		lent, err := s.Reserve(t.Context(), vm, nil, true)
		if err != nil || len(lent) != 1 || lent[0] != (Lent{Address: want, Driver: "vfio-pci", Card: true}) {
			t.Fatalf("%+v, %v", lent, err)
		}
		if _, err := s.Take(t.Context(), vm, lent); err != nil {
			t.Fatal(err)
		}
		if m.cards.lent[want] != vm {
			t.Errorf("lent: %v", m.cards.lent)
		}
		all = append(all, lent)
	}
	if _, err := s.Reserve(t.Context(), "c", nil, true); !errors.Is(err, qverr.Busy) || !strings.Contains(err.Error(), "VM a has") {
		t.Errorf("a third card: %v", err)
	}
	s.Return("a", all[0])
	if got := <-m.cards.returned; got != "0000:05:00.0" || m.driver(got) != "vfio-pci" {
		t.Errorf("%s came back, bound to %q", got, m.driver(got))
	}
	lent, err := s.Reserve(t.Context(), "c", []string{"0000:05:00.0"}, true) // the one that it names
	if err != nil || len(lent) != 1 {
		t.Errorf("%+v, %v", lent, err)
	}
	m.cards.addresses = nil
	if _, err := s.Reserve(t.Context(), "d", nil, true); !errors.Is(err, qverr.QUACNotFound) {
		t.Errorf("without a card: %v", err)
	}
}

// What a VM of an earlier daemon has stays its own.
func TestAdopted(t *testing.T) {
	m, s := newMachine(t)
	lent := []Lent{{Address: "0000:05:00.0", Driver: "vfio-pci", Card: true}}
	s.Adopted("web", lent)
	if m.cards.lent["0000:05:00.0"] != "web" {
		t.Error("the node's cryptography was not told")
	}
	if _, err := s.Reserve(t.Context(), "other", []string{"0000:05:00.0"}, false); !errors.Is(err, qverr.Busy) {
		t.Errorf("%v", err)
	}
	s.Return("web", lent)
	<-m.cards.returned
	if _, err := s.Reserve(t.Context(), "other", []string{"0000:05:00.0"}, false); err != nil {
		t.Errorf("%v", err)
	}
}

func TestFaults(t *testing.T) {
	m, s := newMachine(t)
	if _, err := s.Reserve(t.Context(), "web", []string{"0000:05:00.0"}, false); err != nil {
		t.Fatal(err)
	}
	const intel = "3,1021,123456,-;DMAR: [DMA Read NO_PASID] Request device [05:00.0] fault addr 0xe0000000 [fault reason 0x06] PTE Read access is not set\n"
	s.follow(strings.NewReader(intel + intel +
		"6,1022,123457,-;DMAR: IOMMU enabled\n" +
		"3,1023,123458,-;vfio-pci 0000:06:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x000d address=0x4000000000 flags=0x0020]\n"))
	got := m.log.String()
	for _, want := range []string{"0000:05:00.0 of VM web tried to read 0xe0000000", "0000:06:00.0 of the node tried to access 0x4000000000"} {
		if strings.Count(got, want) != 1 {
			t.Errorf("%q is not there once in:\n%s", want, got)
		}
	}
	if n := strings.Count(got, "\n"); n != 2 {
		t.Errorf("%d lines:\n%s", n, got)
	}
}
